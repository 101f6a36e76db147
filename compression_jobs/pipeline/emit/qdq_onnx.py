"""Writes a QuantGraph as ONNX in QDQ form: int8 activations and weights (S8S8), opset 17, real numbers outside.

Every activation passes QuantizeLinear and DequantizeLinear, which onnxruntime fuses into integer kernels.
Weights and biases are stored as integers behind DequantizeLinear. ONNX wants channels second: tensors are
transposed only where an operator needs the other order, and transposes that cancel out are not written.
onnxruntime scales accumulators in float32 and rounds halves to even, TensorFlow Lite in integers and away from
zero: a step of difference for each operator where a result lies between two, most often in averages of four.
"""

import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compression_jobs.pipeline.emit.onnx_tidying import shorten, skip_identities
from compression_jobs.pipeline.errors import refuse_all
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.graph import copy_of
from compression_jobs.pipeline.graph.quant_arithmetic import QMAX, QMIN

OPSET = 17
IR_VERSION = 8
Order = Literal["own", "channels_second"]


def emit(graph: q.QuantGraph, producer: str = "tinyfleet") -> bytes:
    """The ONNX file of `graph`, the same bytes each time; raises Refused when arithmetic would not be exact."""
    refuse_all(graph.problems(), "calibrate with other rows, or keep the model in float")
    writer = _Writer(graph)
    for op in graph.ops:
        WRITERS[type(op)](writer, op)
    return writer.finish(producer)


class _Writer:
    """Collects nodes and constants; remembers under which name each tensor exists in which order."""

    def __init__(self, graph: q.QuantGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[Any, tuple[str, Any]] = {}  # dtype, shape and bytes -> name and array
        self.real: dict[tuple[str, Order], str] = {}  # dequantised tensors
        for name in (*graph.inputs, *(state.name for state in graph.states)):
            self.real[name, "own"] = self.quantized(name, graph.tensors[name])

    # Small pieces

    def node(self, op: str, inputs: list[str], output: str, **options: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **options))
        return output

    def constant(self, name: str, values: Any) -> str:
        """A constant; equal ones are stored once."""
        array = np.array(values, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        return self.constants.setdefault(key, (name, array))[0]

    def quantized(self, real: str, tensor: q.Tensor, label: str | None = None) -> str:
        """`real` rounded to the stored values of `tensor` and back."""
        label = label or real
        scale = self.constant(f"{label}:scale", np.array(tensor.scale, np.float32).reshape(()))
        zero = self.constant(f"{label}:zero_point", np.array(tensor.zero_point, np.int8).reshape(()))
        stored = self.node("QuantizeLinear", [real, scale, zero], f"{label}:stored")
        return self.node("DequantizeLinear", [stored, scale, zero], f"{label}:real")

    # Tensors

    def take(self, name: str, order: Order) -> str:
        """The dequantised tensor in the wanted order."""
        if (name, order) not in self.real:
            self._bring(name, order)
        return self.real[name, order]

    def give(self, real: str, name: str, order: Order) -> None:
        """`real` is the result for tensor `name`; quantise it."""
        self.real[name, order] = self.quantized(real, self.graph.tensors[name], name)

    def same(self, name: str, order: Order, other: str) -> None:
        """Tensor `name` is in `order` what is called `other` already."""
        self.real[name, order] = other

    def _bring(self, name: str, order: Order) -> None:
        shape = self.graph.tensors[name].shape
        if order == "own":
            held, axes, wanted = self.real[name, "channels_second"], (0, 2, 3, 1), shape
        else:
            held, axes, wanted = self.real[name, "own"], (0, 3, 1, 2), channels_second(shape)
        label = f"{name}:{order}"
        if moves_nothing(shape):
            moved = self.reshaped(held, wanted, label)
        else:
            moved = self.node("Transpose", [held], label, perm=axes)
        self.real[name, order] = self.quantized(moved, self.graph.tensors[name], label)

    def reshaped(self, held: str, shape: tuple[int, ...], label: str) -> str:
        target = self.constant(f"{label}:shape", np.array(shape, np.int64))
        return self.node("Reshape", [held, target], label)

    def activated(self, real: str, op: q.Op, activation: q.Activation) -> str:
        """The activation, where rounding to the output's range does not do it already."""
        if self.graph.bounds(op, activation) == (QMIN, QMAX):
            return real
        label = f"{op.output}:{activation}"
        if activation == "relu":
            return self.node("Relu", [real], label)
        ends = [self.constant(f"{label}:{end}", np.float32(end)) for end in (0, 6)]
        return self.node("Clip", [real, *ends], label)

    def weights(self, op: q.Weighted, values: Any, axis: int) -> list[str]:
        """Names of the dequantised weights (given in ONNX's order) and bias of `op`."""
        source = self.graph.tensor_of(op)
        return [
            self._stored(f"{op.output}:weight", values, op.weights.scales, axis),
            self._stored(f"{op.output}:bias", op.weights.bias, source.scale * op.weights.scales, 0),
        ]

    def _stored(self, label: str, values: Any, scales: Any, axis: int) -> str:
        single = scales.size == 1
        scale = np.asarray(scales, np.float32).reshape(() if single else (-1,))
        stored = self.constant(f"{label}:stored", values)
        names = [
            stored,
            self.constant(f"{label}:scale", scale),
            self.constant(f"{label}:zero_point", np.zeros(scale.shape, values.dtype)),
        ]
        return self.node("DequantizeLinear", names, label, **({} if single else {"axis": axis}))

    def finish(self, producer: str) -> bytes:
        """Name the results, drop what nobody reads, check and serialise."""
        graph = self.graph
        given = [*graph.inputs, *(state.name for state in graph.states)]
        left = [(name, name) for name in graph.outputs] + [(each.next, _next(each)) for each in graph.states]
        for name, label in left:
            self.node("Identity", [self.take(name, "own")], label)
        inputs = [_port(name, graph.tensors[name].shape) for name in given]
        outputs = [_port(label, graph.tensors[name].shape) for name, label in left]
        kept = {*given, *(label for _, label in left)}
        skip_identities(self.nodes, kept)
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.values()]
        shorten(self.nodes, constants, kept)
        body = helper.make_graph(self.nodes, "quantized", inputs, outputs, constants)
        model = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name=producer
        )
        model.ir_version = IR_VERSION
        if graph.states:
            helper.set_model_props(model, {"states": json.dumps(states(graph))})
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def states(graph: q.QuantGraph) -> list[dict[str, Any]]:
    """What is kept between runs: the input that takes it, the output that gives it, and the numbers of the first run.

    `first` is one number where they are all the same.
    """
    found = []
    for state in graph.states:
        tensor = graph.tensors[state.name]
        real = (state.first.astype(np.int64).ravel() - tensor.zero_point) * tensor.scale
        first = float(real[0]) if np.all(real == real[0]) else real.tolist()
        found.append({"input": state.name, "output": _next(state), "first": first})
    return found


def _next(state: q.State) -> str:
    return f"{state.name}:next"


def channels_second(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(batch, height, width, channels) as (batch, channels, height, width)."""
    return shape[0], shape[3], shape[1], shape[2]


def moves_nothing(shape: tuple[int, ...]) -> bool:
    """Whether a channels-last picture has the same bytes channels second."""
    return shape[3] == 1 or shape[1] * shape[2] == 1


def _port(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


# --- operators -----------------------------------------------------------------------------------


def _conv(writer: _Writer, op: q.Conv | q.DepthwiseConv) -> None:
    source, values = writer.graph.tensor_of(op), op.weights.values
    depthwise = isinstance(op, q.DepthwiseConv)
    ordered = values.transpose(3, 0, 1, 2) if depthwise else values.transpose(0, 3, 1, 2)
    real = writer.node(
        "Conv",
        [writer.take(source.name, "channels_second"), *writer.weights(op, ordered, 0)],
        f"{op.output}:sum",
        kernel_shape=list(ordered.shape[2:]),
        strides=list(op.stride),
        pads=list(op.padding),
        dilations=list(op.dilation),
        group=source.shape[3] if depthwise else 1,
    )
    writer.give(writer.activated(real, op, op.activation), op.output, "channels_second")


def _fully_connected(writer: _Writer, op: q.FullyConnected) -> None:
    inputs = [writer.take(op.inputs[0], "own"), *writer.weights(op, op.weights.values, 0)]
    real = writer.node("Gemm", inputs, f"{op.output}:sum", transB=1)
    writer.give(writer.activated(real, op, op.activation), op.output, "own")


def _arithmetic(writer: _Writer, op: q.Add | q.Sub | q.Mul) -> None:
    order = _order_of(writer, op)
    kind = type(op).__name__
    real = writer.node(kind, [writer.take(name, order) for name in op.inputs], f"{op.output}:{kind.lower()}")
    writer.give(writer.activated(real, op, op.activation), op.output, order)


def _concat(writer: _Writer, op: q.Concat) -> None:
    order = _order_of(writer, op)
    axis = (0, 2, 3, 1)[op.axis] if order == "channels_second" else op.axis
    parts = [writer.take(name, order) for name in op.inputs]
    writer.give(writer.node("Concat", parts, f"{op.output}:joined", axis=axis), op.output, order)


def _look_up(writer: _Writer, op: q.LookUp) -> None:
    order = _order_of(writer, op)
    real = writer.take(op.inputs[0], order)
    if op.function != "requantize":
        options = {"alpha": op.alpha} if op.function == "leaky_relu" else {}
        real = writer.node(FUNCTIONS[op.function], [real], f"{op.output}:{op.function}", **options)
    writer.give(real, op.output, order)


def _pool(writer: _Writer, op: q.Pool) -> None:
    options: dict[str, Any] = {"count_include_pad": 0} if op.mode == "average" else {}
    real = writer.node(
        "MaxPool" if op.mode == "max" else "AveragePool",
        [writer.take(op.inputs[0], "channels_second")],
        f"{op.output}:pooled",
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=list(op.padding),
        **options,
    )
    writer.give(real, op.output, "channels_second")


def _mean(writer: _Writer, op: q.Mean) -> None:
    source = writer.take(op.inputs[0], "channels_second")
    real = writer.node("GlobalAveragePool", [source], f"{op.output}:mean")
    target = writer.graph.output_of(op)
    if not _is_picture(target):
        writer.give(writer.reshaped(real, target.shape, f"{op.output}:flat"), op.output, "own")
        return
    writer.give(real, op.output, "channels_second")


def _clamp(writer: _Writer, op: q.Clamp) -> None:
    order = _order_of(writer, op)
    real = writer.activated(writer.take(op.inputs[0], order), op, op.activation)
    writer.give(real, op.output, order)


def _pad(writer: _Writer, op: q.Pad) -> None:
    top, left, bottom, right = op.padding
    amounts = writer.constant(
        f"{op.output}:amounts", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    )
    source = writer.take(op.inputs[0], "channels_second")
    writer.give(writer.node("Pad", [source, amounts], f"{op.output}:padded"), op.output, "channels_second")


def _reshape(writer: _Writer, op: q.Reshape) -> None:
    source, target = writer.graph.tensor_of(op), writer.graph.output_of(op)
    if _is_picture(target) and moves_nothing(target.shape) and channels_second(target.shape) == source.shape:
        writer.same(target.name, "channels_second", writer.take(source.name, "own"))
        return
    order: Order = "own"
    if (
        _is_picture(source)
        and moves_nothing(source.shape)
        and (source.name, "channels_second") in writer.real
    ):
        order = "channels_second"
        if channels_second(source.shape) == target.shape:
            writer.same(target.name, "own", writer.take(source.name, order))
            return
    real = writer.reshaped(writer.take(source.name, order), target.shape, f"{op.output}:reshaped")
    writer.give(real, op.output, "own")


def _transpose(writer: _Writer, op: q.Transpose) -> None:
    if op.order == (0, 2, 3, 1):
        writer.same(op.output, "channels_second", writer.take(op.inputs[0], "own"))
    elif op.order == (0, 3, 1, 2):
        writer.same(op.output, "own", writer.take(op.inputs[0], "channels_second"))
    else:
        source = writer.take(op.inputs[0], "own")
        real = writer.node("Transpose", [source], f"{op.output}:transposed", perm=list(op.order))
        writer.give(real, op.output, "own")


def _enlarge(writer: _Writer, op: q.Enlarge) -> None:
    scales = writer.constant(f"{op.output}:scales", np.array([1, 1, *op.factors], np.float32))
    source = writer.take(op.inputs[0], "channels_second")
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    real = writer.node("Resize", [source, "", scales], f"{op.output}:enlarged", **how)
    writer.give(real, op.output, "channels_second")


def _constant(writer: _Writer, op: q.Constant) -> None:
    tensor = writer.graph.output_of(op)
    names = [
        writer.constant(f"{op.output}:values", op.values),
        writer.constant(f"{op.output}:scale", np.array(tensor.scale, np.float32).reshape(())),
        writer.constant(f"{op.output}:zero_point", np.array(tensor.zero_point, np.int8).reshape(())),
    ]
    writer.same(op.output, "own", writer.node("DequantizeLinear", names, f"{op.output}:constant"))


def _slice(writer: _Writer, op: q.Slice) -> None:
    order, sizes = _order_of(writer, op), writer.graph.output_of(op).shape
    places = [0, 3, 1, 2] if order == "channels_second" else [*range(len(sizes))]
    ranges = [(op.starts[at], op.starts[at] + op.steps[at] * sizes[at], op.steps[at]) for at in places]
    starts, ends, steps = zip(*ranges, strict=True)
    names = [
        writer.constant(f"{op.output}:{what}", np.array(values, np.int64))
        for what, values in (
            ("starts", starts),
            ("ends", ends),
            ("axes", range(len(sizes))),
            ("steps", steps),
        )
    ]
    real = writer.node("Slice", [writer.take(op.inputs[0], order), *names], f"{op.output}:taken")
    writer.give(real, op.output, order)


def _softmax(writer: _Writer, op: q.Softmax) -> None:
    order = _order_of(writer, op)
    source = writer.take(op.inputs[0], order)
    axis = 1 if order == "channels_second" else -1
    writer.give(writer.node("Softmax", [source], f"{op.output}:shares", axis=axis), op.output, order)


def _island(writer: _Writer, op: q.Island) -> None:
    known = {name: writer.take(tensor, "own") for name, tensor in zip(op.names, op.inputs, strict=True)}
    for name, array in op.constants.items():
        known[name] = writer.constant(f"{op.output}:{name}", array)
    for place, each in enumerate(op.nodes):
        node = copy_of(each)
        node.input[:] = [known[name] if name else "" for name in each.input]
        real = f"{op.output}:float:{place}"
        node.output[:] = [real if name else "" for name in each.output]
        node.name = ""
        writer.nodes.append(node)
        known |= {name: real for name in each.output if name}
    writer.give(real, op.output, "own")


def _order_of(writer: _Writer, op: q.Op) -> Order:
    """Channels second for pictures, so that no transposes stand between convolutions."""
    return "channels_second" if _is_picture(writer.graph.output_of(op)) else "own"


def _is_picture(tensor: q.Tensor) -> bool:
    return len(tensor.shape) == 4


FUNCTIONS = {"logistic": "Sigmoid", "tanh": "Tanh", "leaky_relu": "LeakyRelu", "hard_swish": "HardSwish"}

WRITERS: dict[type[q.Op], Callable[[_Writer, Any], None]] = {
    q.Conv: _conv,
    q.DepthwiseConv: _conv,
    q.FullyConnected: _fully_connected,
    q.Add: _arithmetic,
    q.Sub: _arithmetic,
    q.Mul: _arithmetic,
    q.Concat: _concat,
    q.LookUp: _look_up,
    q.Pool: _pool,
    q.Mean: _mean,
    q.Clamp: _clamp,
    q.Pad: _pad,
    q.Reshape: _reshape,
    q.Transpose: _transpose,
    q.Slice: _slice,
    q.Enlarge: _enlarge,
    q.Constant: _constant,
    q.Softmax: _softmax,
    q.Island: _island,
}
