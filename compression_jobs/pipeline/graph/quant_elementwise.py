"""ONNX nodes without weights as operators of the QuantGraph: arithmetic, concatenation, functions of elements."""

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.graph import attributes
from compression_jobs.pipeline.graph.quant_builder import AXES, Builder, UnsupportedError, name_of

LEAKY_SLOPE = 0.01  # ONNX's default


def _sum(builder: Builder, node: NodeProto) -> None:
    _refuse_constants(builder, node)
    shapes = [builder.shape(name) for name in node.input]
    if shapes[0] != shapes[1]:
        raise UnsupportedError("only the sum of two computed tensors of one shape has an int8 form here")
    _arithmetic(builder, node, q.Sub if node.op_type == "Sub" else q.Add)


def _product(builder: Builder, node: NodeProto) -> None:
    _refuse_constants(builder, node)
    ranks = {len(builder.shape(name)) for name in (*node.input, node.output[0])}
    if len(ranks) != 1:
        raise UnsupportedError("only the product of two computed tensors of one rank has an int8 form here")
    _arithmetic(builder, node, q.Mul)


def _refuse_constants(builder: Builder, node: NodeProto) -> None:
    if any(name in builder.graph.initializers for name in node.input):
        raise UnsupportedError(
            f"{node.op_type} with a constant has no int8 form here; only two computed tensors"
        )


def _arithmetic(builder: Builder, node: NodeProto, kind: type[q.Add] | type[q.Sub] | type[q.Mul]) -> None:
    order = builder.order_for(node.input[0])
    sources = tuple(builder.tensor(name, order).name for name in node.input)
    activation, output = builder.fused_activation(node.output[0])
    target = builder.define(output, order, builder.affine_of(output))
    builder.add(kind(name_of(node), sources, target.name, activation))


def _concat(builder: Builder, node: NodeProto) -> None:
    _refuse_constants(builder, node)
    rank = len(builder.shape(node.output[0]))
    order = builder.order_for(node.input[0])
    axis = attributes(node)["axis"] % rank
    if order == "channels_last":
        # A signal has height 1, so that its length is the picture's width.
        axis = AXES[order].index(3 if rank == 3 and axis == 2 else axis)
    target = builder.define(node.output[0], order, builder.affine_of(node.output[0]))
    sources = tuple(_rescaled(builder, builder.tensor(name, order), target) for name in node.input)
    builder.add(q.Concat(name_of(node), sources, target.name, axis))


def _rescaled(builder: Builder, source: q.Tensor, like: q.Tensor) -> str:
    """The tensor at another scale: concatenation copies bytes."""
    if source.same_scale(like):
        return source.name
    made = q.Tensor(f"{source.name}/for/{like.name}", source.shape, like.scale, like.zero_point)
    if made.name not in builder.result.tensors:
        builder.result.tensors[made.name] = made
        builder.add(q.LookUp(made.name, (source.name,), made.name, "requantize"))
    return made.name


def _function(name: q.Function) -> Callable[[Builder, NodeProto], None]:
    def handle(builder: Builder, node: NodeProto) -> None:
        order = builder.order_for(node.input[0])
        source, output = builder.tensor(node.input[0], order), node.output[0]
        scale = q.FIXED_SCALES.get(name) or builder.affine_of(output)
        target = builder.define(output, order, scale)
        slope = attributes(node).get("alpha", LEAKY_SLOPE) if name == "leaky_relu" else 0.0
        alpha = float(np.float32(slope))
        builder.add(q.LookUp(name_of(node), (source.name,), target.name, name, alpha))

    return handle


HANDLERS: dict[str, Callable[[Builder, NodeProto], None]] = {
    "Add": _sum,
    "Sub": _sum,
    "Mul": _product,
    "Concat": _concat,
    "Sigmoid": _function("logistic"),
    "Tanh": _function("tanh"),
    "LeakyRelu": _function("leaky_relu"),
    "HardSwish": _function("hard_swish"),
}
