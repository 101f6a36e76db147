"""One small function an operator: an ONNX node becomes an operator of a torch Net."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from onnx import NodeProto
from torch import Tensor, nn

from compression_jobs.pipeline.graph import net as n
from compression_jobs.pipeline.graph.graph import Array, Graph, attributes

F = nn.functional
Importer = Callable[[Graph, NodeProto], n.Op]


class UnsupportedError(Exception):
    """The node cannot be trained; the text says why."""


# --- layers --------------------------------------------------------------------------------------


def _conv(graph: Graph, node: NodeProto) -> n.Op:
    weight, bias = _weights(graph, node)
    if weight.ndim not in (3, 4):
        raise UnsupportedError(f"{weight.ndim - 2}-D convolutions cannot be trained here")
    options, spatial = attributes(node), weight.ndim - 2
    return n.Conv(
        *_place(node),
        tensor(weight),
        bias,
        strides=list(options.get("strides", [1] * spatial)),
        pads=list(options.get("pads", [0] * 2 * spatial)),
        dilations=list(options.get("dilations", [1] * spatial)),
        groups=options.get("group", 1),
    )


def _conv_transpose(graph: Graph, node: NodeProto) -> n.Op:
    weight, bias = _weights(graph, node)
    options, spatial = attributes(node), weight.ndim - 2
    pads = list(options.get("pads", [0] * 2 * spatial))
    odd = options.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in options
    if spatial not in (1, 2) or odd or pads[:spatial] != pads[spatial:]:
        raise UnsupportedError("transposed convolutions need even, explicit pads and one or two axes")
    return n.ConvTranspose(
        *_place(node),
        tensor(weight),
        bias,
        strides=list(options.get("strides", [1] * spatial)),
        padding=pads[:spatial],
        output_padding=list(options.get("output_padding", [0] * spatial)),
        dilations=list(options.get("dilations", [1] * spatial)),
        groups=options.get("group", 1),
    )


def _gemm(graph: Graph, node: NodeProto) -> n.Op:
    options = attributes(node)
    if options.get("transA", 0) or {options.get("alpha", 1.0), options.get("beta", 1.0)} != {1.0}:
        raise UnsupportedError("alpha, beta and transA of Gemm must be 1, 1 and 0")
    weight, bias = _weights(graph, node)
    matrix = tensor(weight if options.get("transB", 0) else weight.T)
    return n.Dense(*_place(node), matrix, None if bias is None else bias.reshape(-1).expand(len(matrix)))


def _matmul(graph: Graph, node: NodeProto) -> n.Op:
    weight = graph.constant(node, 1)
    if weight is not None and weight.ndim == 2 and graph.constant(node, 0) is None:
        op = n.Dense(*_place(node), tensor(weight.T), None)
        op.is_flat = len(graph.shapes[node.input[0]]) == 2
        return op
    return _plain(graph, node, torch.matmul)


def _batch_norm(graph: Graph, node: NodeProto) -> n.Op:
    values = [graph.constant(node, place) for place in range(1, 5)]
    if any(value is None for value in values):
        raise UnsupportedError("its statistics are computed; only constant ones can be imported")
    gamma, beta, mean, variance = (tensor(cast(Array, value)) for value in values)
    op = n.BatchNorm(*_place(node), mean, variance)
    epsilon = attributes(node).get("epsilon", 1e-5)
    op.variance += epsilon - n.EPSILON
    op.gamma.data, op.beta.data = gamma, beta
    return op


def _reshape(graph: Graph, node: NodeProto) -> n.Op:
    before, after = graph.shapes[node.input[0]], graph.shapes[node.output[0]]
    if before[:1] != after[:1] or before[:1] != (1,):
        raise UnsupportedError("it moves the batch dimension, so only single rows could be trained on")
    return n.Reshape(*_place(node), list(after[1:]))


# --- without weights -----------------------------------------------------------------------------


def _plain(graph: Graph, node: NodeProto, apply: n.Apply, reads: int | None = None) -> n.Op:
    """An operator whose first `reads` inputs are tensors; the others are settings that were read already."""
    names = list(node.input) if reads is None else list(node.input[:reads])
    return n.Plain(node, names, apply)


def _elementwise(function: n.Apply) -> Importer:
    return lambda graph, node: _plain(graph, node, function)


def _clip(graph: Graph, node: NodeProto) -> n.Op:
    low, high = _number(graph, node, 1, -np.inf), _number(graph, node, 2, np.inf)
    return _plain(graph, node, lambda x: torch.clamp(x, low, high), 1)


def _leaky(graph: Graph, node: NodeProto) -> n.Op:
    slope = attributes(node).get("alpha", 0.01)
    return _plain(graph, node, lambda x: F.leaky_relu(x, slope))


def _elu(graph: Graph, node: NodeProto) -> n.Op:
    alpha = attributes(node).get("alpha", 1.0)
    return _plain(graph, node, lambda x: F.elu(x, alpha))


def _hard_sigmoid(graph: Graph, node: NodeProto) -> n.Op:
    options = attributes(node)
    alpha, beta = options.get("alpha", 0.2), options.get("beta", 0.5)
    return _plain(graph, node, lambda x: torch.clamp(alpha * x + beta, 0, 1))


def _gelu(graph: Graph, node: NodeProto) -> n.Op:
    approximate = attributes(node).get("approximate", "none")
    return _plain(graph, node, lambda x: F.gelu(x, approximate=approximate))


def _softmax(function: n.Apply) -> Importer:
    def importer(graph: Graph, node: NodeProto) -> n.Op:
        axis = _axes_inside(graph, node, [attributes(node).get("axis", -1)])[0]
        return _plain(graph, node, lambda x: function(x, dim=axis))

    return importer


def _pool(graph: Graph, node: NodeProto) -> n.Op:
    options = attributes(node)
    kernel = list(options["kernel_shape"])
    spatial = len(kernel)
    if spatial not in (1, 2) or options.get("ceil_mode", 0) or len(node.output) > 1:
        raise UnsupportedError(
            "pooling with ceil_mode, with indices or over three axes cannot be trained here"
        )
    pads = list(options.get("pads", [0] * 2 * spatial))
    strides = list(options.get("strides", [1] * spatial))
    around = n.torch_pads(pads[:spatial], pads[spatial:])
    if node.op_type == "MaxPool":
        dilations = list(options.get("dilations", [1] * spatial))
        pool = cast(n.Apply, F.max_pool1d if spatial == 1 else F.max_pool2d)
        return _plain(graph, node, lambda x: pool(_padded(x, around, -np.inf), kernel, strides, 0, dilations))
    average = cast(n.Apply, F.avg_pool1d if spatial == 1 else F.avg_pool2d)
    if options.get("count_include_pad", 0) or not any(pads):
        return _plain(graph, node, lambda x: average(_padded(x, around, 0.0), kernel, strides))

    def without_padding(x: Tensor) -> Tensor:
        counted = average(_padded(torch.ones_like(x[:1, :1]), around, 0.0), kernel, strides)
        return cast(Tensor, average(_padded(x, around, 0.0), kernel, strides) / counted)

    return _plain(graph, node, without_padding)


def _padded(x: Tensor, around: list[int], value: float) -> Tensor:
    return F.pad(x, around, value=value) if any(around) else x


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


def _pad(graph: Graph, node: NodeProto) -> n.Op:
    amounts = graph.constant(node, 1)
    mode = attributes(node).get("mode", "constant")
    if amounts is None or len(node.input) > 3 or mode not in ("constant", "reflect", "edge"):
        raise UnsupportedError("only padding by constant amounts can be trained here")
    half = len(amounts) // 2
    begins, ends = [int(a) for a in amounts[:half]], [int(a) for a in amounts[half:]]
    if begins[0] or ends[0] or (mode != "constant" and (begins[1] or ends[1])):
        raise UnsupportedError("it pads the batch or, by mirroring, the channels")
    first = 1 if mode == "constant" else 2
    around = n.torch_pads(begins[first:], ends[first:])
    fill = _number(graph, node, 2, 0.0) if mode == "constant" else None
    word = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[mode]
    return _plain(graph, node, lambda x: F.pad(x, around, mode=word, value=fill), 1)


def _concat(graph: Graph, node: NodeProto) -> n.Op:
    axis = _axes_inside(graph, node, [attributes(node)["axis"]])[0]

    def join(*parts: Tensor) -> Tensor:
        rows = max(len(part) for part in parts)  # constants have one row
        return torch.cat([part.expand(rows, *part.shape[1:]) for part in parts], axis)

    return _plain(graph, node, join)


def _split(graph: Graph, node: NodeProto) -> n.Op:
    axis = _axes_inside(graph, node, [attributes(node).get("axis", 0)])[0]
    sizes = [graph.shapes[name][axis] for name in node.output]
    return _plain(graph, node, lambda x: torch.split(x, sizes, axis), 1)


def _slice(graph: Graph, node: NodeProto) -> n.Op:
    given = [graph.constant(node, place) for place in range(1, len(node.input))]
    if any(value is None for value in given) or len(given) < 2:
        raise UnsupportedError("only slices at constant places can be trained here")
    starts, ends = (cast(Array, value).tolist() for value in given[:2])
    axes = cast(Array, given[2]).tolist() if len(given) > 2 else list(range(len(starts)))
    steps = cast(Array, given[3]).tolist() if len(given) > 3 else [1] * len(starts)
    axes = _axes_inside(graph, node, axes)
    if min(steps) < 1:
        raise UnsupportedError("slices with negative steps cannot be trained here")
    windows = {axis: slice(a, b, s) for axis, a, b, s in zip(axes, starts, ends, steps, strict=True)}
    return _plain(graph, node, lambda x: x[tuple(windows.get(i, slice(None)) for i in range(x.dim()))], 1)


def _gather(graph: Graph, node: NodeProto) -> n.Op:
    axis = attributes(node).get("axis", 0)
    table, index = graph.constant(node, 0), graph.constant(node, 1)
    if table is not None and table.ndim == 2 and axis == 0 and table.dtype == np.float32 and index is None:
        is_flat = len(graph.shapes[node.output[0]]) == 2
        rows = torch.from_numpy(np.array(table))
        return n.Embedding(node.name, node.input[1], node.output[0], rows, is_flat)
    if table is not None and axis == 0:
        return _plain(graph, node, lambda rows, places: rows[places.long()])
    if index is None:
        raise UnsupportedError("only constant places of a tensor, or rows of a constant table, can be taken")
    axis = _axes_inside(graph, node, [axis])[0]
    if index.ndim == 0:
        return _plain(graph, node, lambda x: x.select(axis, int(index)), 1)
    places = torch.from_numpy(np.array(index, np.int64))
    if index.ndim > 1:
        raise UnsupportedError("places of more than one dimension cannot be trained here")
    return _plain(graph, node, lambda x: x.index_select(axis, places % x.shape[axis]), 1)


def _transpose(graph: Graph, node: NodeProto) -> n.Op:
    rank = len(graph.shapes[node.input[0]])
    order = list(attributes(node).get("perm", range(rank)[::-1]))
    if order[0] != 0:
        raise UnsupportedError("it moves the batch dimension")
    return _plain(graph, node, lambda x: x.permute(order))


def _reduce(function: n.Apply) -> Importer:
    def importer(graph: Graph, node: NodeProto) -> n.Op:
        options = attributes(node)
        given = graph.constant(node, 1) if len(node.input) > 1 else options.get("axes")
        if given is None:
            raise UnsupportedError("it reduces over the batch")
        axes = _axes_inside(graph, node, [int(axis) for axis in given])
        keep = bool(options.get("keepdims", 1))
        return _plain(graph, node, lambda x: function(x, axes, keep), 1)

    return importer


def _resize(graph: Graph, node: NodeProto) -> n.Op:
    before, after = graph.shapes[node.input[0]], graph.shapes[node.output[0]]
    whole = (
        len(before) == 4
        and before[:2] == after[:2]
        and all(b % a == 0 for a, b in zip(before, after, strict=True))
    )
    options = attributes(node)
    if not whole or options.get("mode", "nearest") != "nearest":
        raise UnsupportedError(
            "only enlarging pictures by whole numbers, nearest neighbour, can be trained here"
        )
    size = list(after[2:])
    return _plain(graph, node, lambda x: F.interpolate(x, size=size, mode="nearest"), 1)


def _layer_norm(graph: Graph, node: NodeProto) -> n.Op:
    options = attributes(node)
    axis, epsilon = _axes_inside(graph, node, [options.get("axis", -1)])[0], options.get("epsilon", 1e-5)
    if len(node.output) > 1:
        raise UnsupportedError("only its first output can be used")

    def normalise(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, x.shape[axis:], scale.expand(x.shape[axis:]), shift, epsilon)

    return _plain(graph, node, normalise)


def _prelu(graph: Graph, node: NodeProto) -> n.Op:
    return _plain(graph, node, lambda x, slope: torch.where(x >= 0, x, slope * x))


# --- small questions -----------------------------------------------------------------------------


def tensor(values: Array) -> Tensor:
    """A float tensor of its own memory."""
    return torch.from_numpy(np.array(values, np.float32))


def _place(node: NodeProto) -> tuple[str, str, str]:
    return str(node.name), str(node.input[0]), str(node.output[0])


def _weights(graph: Graph, node: NodeProto) -> tuple[Array, Tensor | None]:
    weight, bias = graph.constant(node, 1), graph.constant(node, 2)
    if weight is None or (bias is None and len(node.input) > 2 and node.input[2]):
        raise UnsupportedError("its weights are computed; only constant weights can be trained")
    return weight, None if bias is None else tensor(bias)


def _number(graph: Graph, node: NodeProto, place: int, absent: float) -> float:
    if place >= len(node.input) or not node.input[place]:
        return absent
    value = graph.constant(node, place)
    if value is None or value.size != 1:
        raise UnsupportedError(f"its input {place} is computed; only a constant number can be used")
    return float(value.reshape(-1)[0])


def _axes_inside(graph: Graph, node: NodeProto, axes: list[int]) -> list[int]:
    """Axes counted from the front, refused when one is the batch."""
    source = next(name for name in node.input if name in graph.shapes)
    rank = len(graph.shapes[source])
    plain = [int(axis) % rank for axis in axes]
    if 0 in plain:
        raise UnsupportedError("it works along the batch dimension")
    return plain


def _total(*parts: Tensor) -> Any:
    return sum(parts[1:], parts[0])


IMPORTERS: dict[str, Importer] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Relu": _elementwise(torch.relu),
    "Sigmoid": _elementwise(torch.sigmoid),
    "Tanh": _elementwise(torch.tanh),
    "HardSwish": _elementwise(F.hardswish),
    "Softplus": _elementwise(F.softplus),
    "Erf": _elementwise(torch.erf),
    "Exp": _elementwise(torch.exp),
    "Log": _elementwise(torch.log),
    "Sqrt": _elementwise(torch.sqrt),
    "Abs": _elementwise(torch.abs),
    "Neg": _elementwise(torch.neg),
    "Pow": _elementwise(torch.pow),
    "Add": _elementwise(torch.add),
    "Sub": _elementwise(torch.sub),
    "Mul": _elementwise(torch.mul),
    "Div": _elementwise(torch.div),
    "Min": _elementwise(torch.minimum),
    "Max": _elementwise(torch.maximum),
    "Sum": _elementwise(_total),
    "Identity": _elementwise(lambda x: x),
    "PRelu": _prelu,
    "Clip": _clip,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _elementwise(lambda x: x.mean(_spatial(x), keepdim=True)),
    "GlobalMaxPool": _elementwise(lambda x: x.amax(_spatial(x), keepdim=True)),
    "Pad": _pad,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Transpose": _transpose,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "Resize": _resize,
    "LayerNormalization": _layer_norm,
}
