"""What shape each operator of a QuantGraph gives: files from elsewhere may state another."""

from collections.abc import Callable
from typing import Any

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q

Shape = tuple[int, ...]


def shape_problems(graph: q.QuantGraph) -> list[str]:
    """Every operator whose tensors do not fit each other."""
    return [
        f"{op.name}: its result has shape {list(graph.output_of(op).shape)}, which does not follow from its inputs"
        for op in graph.ops
        if not _fits(graph, op)
    ]


def _fits(graph: q.QuantGraph, op: q.Op) -> bool:
    sources = [graph.tensors[name].shape for name in op.inputs]
    target = graph.output_of(op).shape
    rule = RULES.get(type(op))
    if rule is None:
        return sources[0] == target
    return rule(op, sources, target)


def _convolution(op: q.Conv | q.DepthwiseConv, sources: list[Shape], target: Shape) -> bool:
    shape, weights = sources[0], op.weights.values.shape
    if len(shape) != 4 or len(weights) != 4 or min(weights) < 1:
        return False
    depthwise = isinstance(op, q.DepthwiseConv)
    channels = weights[3] if depthwise else weights[0]
    matches = channels % shape[3] == 0 and weights[0] == 1 if depthwise else weights[3] == shape[3]
    size = _window(shape, (weights[1], weights[2]), op.stride, op.padding, op.dilation)
    return matches and _weights_fit(op, channels) and target == (1, *size, channels)


def _weights_fit(op: q.Weighted, channels: int) -> bool:
    return op.weights.bias.shape == (channels,) and op.weights.scales.size in (1, channels)


def _window(shape: Shape, kernel: q.Pair, stride: q.Pair, padding: q.Padding, dilation: q.Pair) -> Shape:
    """Height and width of what sliding windows give; nothing may be smaller than one."""
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        return ()
    reach = [(kernel[i] - 1) * dilation[i] + 1 for i in range(2)]
    room = [shape[1 + i] + padding[i] + padding[2 + i] - reach[i] for i in range(2)]
    return tuple(room[i] // stride[i] + 1 for i in range(2)) if min(room) >= 0 else ()


def _dense(op: q.FullyConnected, sources: list[Shape], target: Shape) -> bool:
    outputs, inputs = op.weights.values.shape
    return sources[0] == (1, inputs) and target == (1, outputs) and _weights_fit(op, outputs)


def _pool(op: q.Pool, sources: list[Shape], target: Shape) -> bool:
    shape = sources[0]
    # A window that lies in the padding alone would have nothing to average.
    if len(shape) != 4 or max(op.padding[0], op.padding[2]) >= op.kernel[0]:
        return False
    size = _window(shape, op.kernel, op.stride, op.padding, (1, 1))
    return max(op.padding[1], op.padding[3]) < op.kernel[1] and target == (1, *size, shape[3])


def _mean(op: q.Mean, sources: list[Shape], target: Shape) -> bool:
    return len(sources[0]) == 4 and target in ((1, sources[0][3]), (1, 1, 1, sources[0][3]))


def _pad(op: q.Pad, sources: list[Shape], target: Shape) -> bool:
    top, left, bottom, right = op.padding
    if len(sources[0]) != 4 or min(op.padding) < 0:
        return False
    _, height, width, channels = sources[0]
    return target == (1, height + top + bottom, width + left + right, channels)


def _broadcast(op: q.Op, sources: list[Shape], target: Shape) -> bool:
    if len(sources) != 2 or len(sources[0]) != len(sources[1]):
        return False
    pairs = list(zip(*sources, strict=True))
    return all(1 in pair or pair[0] == pair[1] for pair in pairs) and target == tuple(map(max, pairs))


def _concat(op: q.Concat, sources: list[Shape], target: Shape) -> bool:
    if not 0 < op.axis < len(target) or any(len(shape) != len(target) for shape in sources):
        return False
    others = {(*shape[: op.axis], *shape[op.axis + 1 :]) for shape in sources}
    rest = (*target[: op.axis], *target[op.axis + 1 :])
    return others == {rest} and sum(shape[op.axis] for shape in sources) == target[op.axis]


def _reshape(op: q.Reshape, sources: list[Shape], target: Shape) -> bool:
    return int(np.prod(sources[0])) == int(np.prod(target))


def _transpose(op: q.Transpose, sources: list[Shape], target: Shape) -> bool:
    shape = sources[0]
    if sorted(op.order) != list(range(len(shape))) or op.order[0] != 0:
        return False
    return target == tuple(shape[axis] for axis in op.order)


def _slice(op: q.Slice, sources: list[Shape], target: Shape) -> bool:
    shape = sources[0]
    if not len(shape) == len(target) == len(op.starts) == len(op.steps) or op.starts[0] != 0:
        return False
    return all(
        start >= 0 and step >= 1 and start + (taken - 1) * step < size
        for start, step, taken, size in zip(op.starts, op.steps, target, shape, strict=True)
    )


def _enlarge(op: q.Enlarge, sources: list[Shape], target: Shape) -> bool:
    shape, (height, width) = sources[0], op.factors
    if len(shape) != 4 or min(op.factors) < 1:
        return False
    return target == (1, shape[1] * height, shape[2] * width, shape[3])


def _constant(op: q.Constant, sources: list[Shape], target: Shape) -> bool:
    return not sources and op.values.shape == target


RULES: dict[type[q.Op], Callable[[Any, list[Shape], Shape], bool]] = {
    q.Conv: _convolution,
    q.DepthwiseConv: _convolution,
    q.FullyConnected: _dense,
    q.Add: _broadcast,
    q.Sub: _broadcast,
    q.Mul: _broadcast,
    q.Concat: _concat,
    q.Pool: _pool,
    q.Mean: _mean,
    q.Pad: _pad,
    q.Reshape: _reshape,
    q.Transpose: _transpose,
    q.Slice: _slice,
    q.Enlarge: _enlarge,
    q.Constant: _constant,
}
