"""One small function an operator: an ONNX node becomes operators of the QuantGraph."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph import quant_elementwise, quant_moves
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.graph import Array, attributes
from compression_jobs.pipeline.graph.quant_builder import (
    Builder,
    UnsupportedError,
    activation_of,
    as_picture,
    name_of,
    padding_of,
    pair,
)


def _conv(builder: Builder, node: NodeProto) -> None:
    weight = _constant(builder, node, 1)
    if weight.ndim not in (3, 4):
        raise UnsupportedError(f"{weight.ndim - 2}-D convolutions have no int8 form; 1-D and 2-D ones have")
    weight = weight.reshape(as_picture(weight.shape))
    source = builder.tensor(node.input[0], "channels_last")
    options = attributes(node)
    groups, channels = options.get("group", 1), source.shape[3]
    activation, output = builder.fused_activation(node.output[0])
    stride, dilation = pair(options.get("strides"), 1), pair(options.get("dilations"), 1)
    kernel = (weight.shape[2], weight.shape[3])
    padding = padding_of(node, (source.shape[1], source.shape[2]), kernel, stride, dilation)
    kind, ordered = _convolution_kind(weight, groups, channels)
    target = builder.define(output, "channels_last", builder.affine_of(output))
    weights = builder.weights(ordered, builder.graph.constant(node, 2), kind.channel_axis, source)
    place = (name_of(node), (source.name,), target.name)
    builder.add(kind(*place, weights, activation, stride, padding, dilation))


def _convolution_kind(
    weight: Array, groups: int, channels: int
) -> tuple[type[q.Conv] | type[q.DepthwiseConv], Array]:
    if groups == 1:
        return q.Conv, weight.transpose(0, 2, 3, 1)
    if groups == channels and weight.shape[1] == 1:
        return q.DepthwiseConv, weight.transpose(1, 2, 3, 0)
    raise UnsupportedError(
        f"groups = {groups} for {channels} channels has no int8 form; only 1 or {channels} have"
    )


def _gemm(builder: Builder, node: NodeProto) -> None:
    options = attributes(node)
    if options.get("alpha", 1.0) != 1.0 or options.get("beta", 1.0) != 1.0 or options.get("transA", 0):
        raise UnsupportedError("alpha, beta and transA of Gemm must be 1, 1 and 0")
    weight = _constant(builder, node, 1)
    bias = None if len(node.input) < 3 or not node.input[2] else _constant(builder, node, 2)
    _dense(builder, node, weight if options.get("transB", 0) else weight.T, bias, node.output[0])


def _matmul(builder: Builder, node: NodeProto) -> None:
    weight = _constant(builder, node, 1)
    if weight.ndim != 2:
        raise UnsupportedError("only a product with one constant matrix has an int8 form")
    output, bias = node.output[0], None
    follower = _only_consumer(builder, output)
    if follower is not None and follower.op_type == "Add":
        other = follower.input[1] if follower.input[0] == output else follower.input[0]
        added = builder.graph.initializers.get(other)
        if added is not None and added.size == weight.shape[1]:
            bias, output = added.ravel(), follower.output[0]
            builder.done.add(follower.name)
    _dense(builder, node, weight.T, bias, output)


def _dense(builder: Builder, node: NodeProto, weight: Array, bias: Array | None, output: str) -> None:
    if len(builder.shape(node.input[0])) != 2:
        raise UnsupportedError("a dense layer on more than rows of numbers has no int8 form here")
    source, weight = _flat_source(builder, node.input[0], weight)
    if bias is not None:
        bias = np.broadcast_to(bias.ravel(), (weight.shape[0],))
    activation, output = builder.fused_activation(output)
    target = builder.define(output, "onnx", builder.affine_of(output))
    weights = builder.weights(weight, bias, 0, source)
    builder.add(q.FullyConnected(name_of(node), (source.name,), target.name, weights, activation))


def _flat_source(builder: Builder, name: str, weight: Array) -> tuple[q.Tensor, Array]:
    """The input of a dense layer; a flattened picture stays channels last and the weights follow it."""
    origin = builder.flattened.get(name)
    if origin is None or (name, "onnx") in builder.held or (origin, "channels_last") not in builder.held:
        return builder.tensor(name, "onnx"), weight
    _, channels, height, width = as_picture(builder.shape(origin))
    picture = builder.tensor(origin, "channels_last")
    label = f"{name}/channels_last"
    if label not in builder.result.tensors:
        flat = q.Tensor(label, (1, picture.size), picture.scale, picture.zero_point)
        builder.result.tensors[label] = flat
        builder.add(q.Reshape(label, (picture.name,), label))
    moved = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return builder.result.tensors[label], np.ascontiguousarray(moved.reshape(len(weight), -1))


def _activation(builder: Builder, node: NodeProto) -> None:
    activation = activation_of(builder.graph, node)
    if activation is None:
        raise UnsupportedError("only Clip to constant bounds with 0 between them has an int8 form")
    order = builder.order_for(node.input[0])
    source = builder.tensor(node.input[0], order)
    if activation == "none":
        target = builder.define(node.output[0], order, builder.affine_of(node.output[0]))
        builder.add(q.LookUp(name_of(node), (source.name,), target.name, "requantize"))
        return
    target = builder.define(node.output[0], order, (source.scale, source.zero_point))
    builder.add(q.Clamp(name_of(node), (source.name,), target.name, activation))


def _pool(builder: Builder, node: NodeProto) -> None:
    options = attributes(node)
    source = _picture(builder, node)
    if pair(options.get("dilations"), 1) != (1, 1) or len(node.output) > 1:
        raise UnsupportedError("dilated pooling and pooling with indices have no int8 form")
    kernel, stride = pair(options["kernel_shape"], 1), pair(options.get("strides"), 1)
    padding = padding_of(node, (source.shape[1], source.shape[2]), kernel, stride, (1, 1))
    mode: Literal["average", "max"] = "max" if node.op_type == "MaxPool" else "average"
    target = builder.define(node.output[0], "channels_last", (source.scale, source.zero_point))
    if mode == "average" and options.get("count_include_pad", 0) and any(padding):
        source, padding = _padded(builder, node, source, padding), (0, 0, 0, 0)
    expected = tuple(
        (source.shape[axis + 1] + padding[axis] + padding[axis + 2] - kernel[axis]) // stride[axis] + 1
        for axis in range(2)
    )
    if expected != target.shape[1:3]:
        raise UnsupportedError("pooling windows that reach over the edge (ceil_mode) have no int8 form")
    builder.add(q.Pool(name_of(node), (source.name,), target.name, mode, kernel, stride, padding))


def _padded(builder: Builder, node: NodeProto, source: q.Tensor, padding: q.Padding) -> q.Tensor:
    top, left, bottom, right = padding
    batch, height, width, channels = source.shape
    shape = (batch, height + top + bottom, width + left + right, channels)
    padded = q.Tensor(f"{node.output[0]}/padded", shape, source.scale, source.zero_point)
    builder.result.tensors[padded.name] = padded
    builder.add(q.Pad(padded.name, (source.name,), padded.name, padding))
    return padded


def _global_average(builder: Builder, node: NodeProto) -> None:
    source = _picture(builder, node)
    target = builder.define(node.output[0], "channels_last", builder.affine_of(node.output[0]))
    builder.add(q.Mean(name_of(node), (source.name,), target.name))


def _global_max(builder: Builder, node: NodeProto) -> None:
    source = _picture(builder, node)
    kernel = (source.shape[1], source.shape[2])
    target = builder.define(node.output[0], "channels_last", (source.scale, source.zero_point))
    builder.add(q.Pool(name_of(node), (source.name,), target.name, "max", kernel, (1, 1), (0, 0, 0, 0)))


def _pad(builder: Builder, node: NodeProto) -> None:
    source = _picture(builder, node)
    amounts, fill = builder.graph.constant(node, 1), builder.graph.constant(node, 2)
    mode = attributes(node).get("mode", "constant")
    if amounts is None or mode != "constant" or (fill is not None and float(fill.ravel()[0]) != 0.0):
        raise UnsupportedError("only padding with a constant number of zeros has an int8 form")
    values = [int(value) for value in amounts]
    if len(values) == 6:
        values = [*values[:2], 0, values[2], *values[3:5], 0, values[5]]
    if len(node.input) > 3 or len(values) != 8 or any(values[i] for i in (0, 1, 4, 5)) or min(values) < 0:
        raise UnsupportedError("only padding of height and width has an int8 form")
    target = builder.define(node.output[0], "channels_last", (source.scale, source.zero_point))
    padding = (values[2], values[3], values[6], values[7])
    builder.add(q.Pad(name_of(node), (source.name,), target.name, padding))


def _reshape(builder: Builder, node: NodeProto) -> None:
    """Nothing is written yet: what reads the result decides in which order it wants it."""
    if node.input[0] in builder.graph.initializers:
        raise UnsupportedError("reshaping a constant; fold it first")
    builder.shape(node.output[0])
    builder.flattened[node.output[0]] = _origin(builder, node.input[0])


def _origin(builder: Builder, name: str) -> str:
    """Reshapes of reshapes start at the first one."""
    return builder.flattened.get(name, name)


def _softmax(builder: Builder, node: NodeProto) -> None:
    rank = len(builder.shape(node.input[0]))
    axis = attributes(node).get("axis", -1) % rank
    order = builder.order_for(node.input[0])
    if axis != (1 if order == "channels_last" else rank - 1):
        raise UnsupportedError("softmax has an int8 form over the channels only")
    source = builder.tensor(node.input[0], order)
    target = builder.define(node.output[0], order, (q.SOFTMAX_SCALE, q.SOFTMAX_ZERO_POINT))
    builder.add(q.Softmax(name_of(node), (source.name,), target.name))


# --- small questions -----------------------------------------------------------------------------


def _picture(builder: Builder, node: NodeProto) -> q.Tensor:
    if len(builder.shape(node.input[0])) not in (3, 4):
        raise UnsupportedError("only 1-D and 2-D pooling and padding have an int8 form here")
    return builder.tensor(node.input[0], "channels_last")


def _constant(builder: Builder, node: NodeProto, position: int) -> Any:
    value = builder.graph.constant(node, position)
    if value is None:
        raise UnsupportedError(f"its input {position} is computed; only constant weights have an int8 form")
    return value


def _only_consumer(builder: Builder, name: str) -> NodeProto | None:
    return builder.graph.consumers[name][0] if builder.graph.used_once(name) else None


HANDLERS: dict[str, Callable[[Builder, NodeProto], None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    **quant_elementwise.HANDLERS,
    **quant_moves.HANDLERS,
    "Relu": _activation,
    "Clip": _activation,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "Pad": _pad,
    "Softmax": _softmax,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"), _reshape),
}
