"""One small function an operator: what a `.tflite` says becomes operators of the QuantGraph."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph import tflite_moves, tflite_states
from compression_jobs.pipeline.graph.quant_arithmetic import QMIN
from compression_jobs.pipeline.graph.quant_windows import same_padding
from compression_jobs.pipeline.graph.tflite_importer import Importer, UnsupportedError
from compression_jobs.pipeline.graph.tflite_moves import give, reshaped
from compression_jobs.pipeline.graph.tflite_reading import Node
from compression_jobs.pipeline.graph.tflite_transposed import transpose_conv


def _conv(importer: Importer, node: Node) -> None:
    depthwise = node.kind == "DEPTHWISE_CONV_2D"
    kind = q.DepthwiseConv if depthwise else q.Conv
    source, taken = importer.window_source(node, None)
    weights = importer.weights(node, kind.channel_axis)
    if len(weights.values.shape) != 4 or len(source.shape) != 4:
        raise UnsupportedError("its input or weights do not have four dimensions")
    if not depthwise and weights.values.shape[3] != source.shape[3]:
        raise UnsupportedError(
            f"its windows see {weights.values.shape[3]} of {source.shape[3]} channels; groups have no int8 form here"
        )
    stride = node.options.StrideH(), node.options.StrideW()
    dilation = node.options.DilationHFactor(), node.options.DilationWFactor()
    kernel = int(weights.values.shape[1]), int(weights.values.shape[2])
    padding = taken or _padding(node, source, kernel, stride, dilation)
    activation, target = importer.activation(node.options), importer.target(node)
    importer.add(
        kind(node.label, (source.name,), target.name, weights, activation, stride, padding, dilation)
    )


def _padding(node: Node, source: q.Tensor, kernel: q.Pair, stride: q.Pair, dilation: q.Pair) -> q.Padding:
    if min(*kernel, *stride, *dilation) < 1:
        raise UnsupportedError("its window, stride or dilation is smaller than 1")
    if node.options.Padding() == schema.Padding.VALID:
        return 0, 0, 0, 0
    return same_padding((source.shape[1], source.shape[2]), kernel, stride, dilation)


def _pool(importer: Importer, node: Node) -> None:
    mode: Literal["average", "max"] = "max" if node.kind == "MAX_POOL_2D" else "average"
    source, taken = importer.window_source(node, QMIN) if mode == "max" else (importer.source(node), None)
    if len(source.shape) != 4:
        raise UnsupportedError("its input does not have four dimensions")
    kernel = node.options.FilterHeight(), node.options.FilterWidth()
    stride = node.options.StrideH(), node.options.StrideW()
    padding = taken or _padding(node, source, kernel, stride, (1, 1))
    importer.clamped(
        node,
        lambda target: importer.add(
            q.Pool(node.label, (source.name,), target.name, mode, kernel, stride, padding)
        ),
    )


def _fully_connected(importer: Importer, node: Node) -> None:
    if (
        node.options is not None
        and node.options.WeightsFormat() != schema.FullyConnectedOptionsWeightsFormat.DEFAULT
    ):
        raise UnsupportedError("its weights are shuffled")
    weights = importer.weights(node, 0)
    if len(weights.values.shape) != 2:
        raise UnsupportedError("its weights do not have two dimensions")
    outputs, inputs = weights.values.shape
    source = importer.source(node)
    if source.size != inputs:
        _rows(importer, node, source, weights)
        return
    activation, target = importer.activation(node.options), importer.target(node)
    flat = reshaped(importer, node, source, (1, inputs), "flat")
    result = target if len(target.shape) == 2 else importer.between(target, (1, outputs), "flat")
    importer.add(q.FullyConnected(node.label, (flat.name,), result.name, weights, activation))
    give(importer, node, result, target)


def _rows(importer: Importer, node: Node, source: q.Tensor, weights: q.Weights) -> None:
    """A dense layer on each of several rows: a convolution whose windows are rows."""
    outputs, inputs = weights.values.shape
    rows = source.size // inputs
    if source.size != rows * inputs:
        raise UnsupportedError(f"{source.size} inputs are no whole number of rows of {inputs}")
    activation, target = importer.activation(node.options), importer.target(node)
    flat = reshaped(importer, node, source, (1, rows, 1, inputs), "rows")
    result = importer.between(target, (1, rows, 1, outputs), "rows")
    window = q.Weights(weights.values.reshape(outputs, 1, 1, inputs), weights.scales, weights.bias)
    place = (node.label, (flat.name,), result.name)
    importer.add(q.Conv(*place, window, activation, (1, 1), (0, 0, 0, 0), (1, 1)))
    give(importer, node, result, target)


def _sides(importer: Importer, node: Node) -> tuple[str, ...]:
    """Both terms or factors, with as many axes; one of them may be a constant."""
    stored = [importer.stored(node, position) for position in range(2)]
    shapes = [
        each.shape if each is not None and each.values is not None else importer.source(node, position).shape
        for position, each in enumerate(stored)
    ]
    rank = max(map(len, shapes))
    return tuple(
        _given(importer, node, position, (1,) * (rank - len(shape)) + shape).name
        for position, shape in enumerate(shapes)
    )


def _given(importer: Importer, node: Node, position: int, shape: tuple[int, ...]) -> q.Tensor:
    """What an operator reads, a constant or not, under a shape of as many elements."""
    stored = importer.stored(node, position)
    if stored is not None and stored.values is not None:
        return importer.constant(node, position, len(shape))
    return reshaped(importer, node, importer.source(node, position), shape, f"side {position}")


def _arithmetic(kind: type[q.Add] | type[q.Sub] | type[q.Mul]) -> Callable[[Importer, Node], None]:
    def handle(importer: Importer, node: Node) -> None:
        sources = _sides(importer, node)
        activation, target = importer.activation(node.options), importer.target(node)
        importer.add(kind(node.label, sources, target.name, activation))

    return handle


def _concat(importer: Importer, node: Node) -> None:
    stored = [importer.model.tensors[index] for index in node.inputs if index >= 0]
    sources = tuple(_given(importer, node, position, each.shape).name for position, each in enumerate(stored))
    rank, axis = len(stored[0].shape) if stored else 0, node.options.Axis()
    if not -rank <= axis < rank:
        raise UnsupportedError(f"its axis is {axis}, of {rank}")
    importer.clamped(
        node, lambda target: importer.add(q.Concat(node.label, sources, target.name, axis % rank))
    )


def _reduce(importer: Importer, node: Node) -> None:
    """A mean or maximum over any axes but the batch: over height and width of a picture, made by moving them there."""
    source, target = importer.source(node), importer.target(node)
    picture, channels = _picture(importer, node, source)
    plain = target.shape in ((1, channels), (1, 1, 1, channels)) and node.kind == "MEAN"
    result = target if plain else importer.between(target, (1, 1, 1, channels), "reduced")
    if node.kind == "MEAN":
        importer.add(q.Mean(node.label, (picture.name,), result.name))
    else:
        kernel, place = picture.shape[1:3], (node.label, (picture.name,), result.name)
        importer.add(q.Pool(*place, "max", (kernel[0], kernel[1]), (1, 1), (0, 0, 0, 0)))
    give(importer, node, result, target)


def _picture(importer: Importer, node: Node, source: q.Tensor) -> tuple[q.Tensor, int]:
    """The input with all that is reduced as its height and width, and how many numbers are left."""
    rank = len(source.shape)
    axes = sorted({axis % rank for axis in importer.numbers(node, 1)} - {0})
    if not axes:
        raise UnsupportedError("it reduces no axis behind the batch")
    if rank == 4 and axes == [1, 2]:
        return source, source.shape[3]
    kept = [axis for axis in range(1, rank) if axis not in axes]
    in_front = [axis for axis in kept if axis < axes[-1] and source.shape[axis] > 1]
    if in_front:
        order = (0, *axes, *kept)
        moved = importer.between(source, tuple(source.shape[axis] for axis in order), f"for {node.label}")
        importer.add(q.Transpose(moved.name, (source.name,), moved.name, order))
        source = moved
        axes, kept = [*range(1, len(axes) + 1)], [*range(len(axes) + 1, rank)]
    count, channels = (int(np.prod([source.shape[axis] for axis in part])) for part in (axes, kept))
    return reshaped(importer, node, source, (1, count, 1, channels), "picture"), channels


def _softmax(importer: Importer, node: Node) -> None:
    source, target = importer.source(node), importer.target(node)
    if node.options.Beta() != 1.0:
        raise UnsupportedError(f"its beta is {node.options.Beta()}, only 1 has an int8 form here")
    if (target.scale, target.zero_point) != (q.SOFTMAX_SCALE, q.SOFTMAX_ZERO_POINT):
        raise UnsupportedError("the scale of its result is not 1/256")
    importer.add(q.Softmax(node.label, (source.name,), target.name))


def _rectify(activation: q.Activation) -> Callable[[Importer, Node], None]:
    def handle(importer: Importer, node: Node) -> None:
        source, target = importer.source(node), importer.target(node)
        if not source.same_scale(target):
            scaled = importer.between(target, source.shape, "scaled")
            importer.add(q.LookUp(scaled.name, (source.name,), scaled.name, "requantize"))
            source = scaled
        importer.add(q.Clamp(node.label, (source.name,), target.name, activation))

    return handle


def _look_up(function: q.Function) -> Callable[[Importer, Node], None]:
    def handle(importer: Importer, node: Node) -> None:
        source, target = importer.source(node), importer.target(node)
        alpha = float(node.options.Alpha()) if function == "leaky_relu" else 0.0
        importer.add(q.LookUp(node.label, (source.name,), target.name, function, alpha))

    return handle


def _inner_dequantize(importer: Importer, node: Node) -> None:
    raise UnsupportedError("the model goes back to floats before its end")


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    **tflite_moves.HANDLERS,
    **tflite_states.HANDLERS,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "TRANSPOSE_CONV": transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _arithmetic(q.Add),
    "SUB": _arithmetic(q.Sub),
    "MUL": _arithmetic(q.Mul),
    "CONCATENATION": _concat,
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "MEAN": _reduce,
    "REDUCE_MAX": _reduce,
    "SOFTMAX": _softmax,
    "RELU": _rectify("relu"),
    "RELU6": _rectify("relu6"),
    "LOGISTIC": _look_up("logistic"),
    "TANH": _look_up("tanh"),
    "LEAKY_RELU": _look_up("leaky_relu"),
    "HARD_SWISH": _look_up("hard_swish"),
    "QUANTIZE": _look_up("requantize"),
    "DEQUANTIZE": _inner_dequantize,
}
