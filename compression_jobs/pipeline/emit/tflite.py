"""Writes a QuantGraph as an int8 `.tflite` for LiteRT and TensorFlow Lite Micro.

The format knows the paddings SAME and VALID only. Any other is written as an operator of its own, with the bytes
that change no result: zeros in front of convolutions, the lowest value in front of maxima.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compression_jobs.pipeline.emit.tflite_file import OPERATOR, TfliteFile
from compression_jobs.pipeline.errors import refuse_all
from compression_jobs.pipeline.graph import quant_states
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_arithmetic import QMIN
from compression_jobs.pipeline.graph.quant_windows import Windowed, padded_shape, padding_name

ACTIVATIONS: dict[q.Activation, int] = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}

PADDINGS = {"VALID": schema.Padding.VALID, "SAME": schema.Padding.SAME}


def emit(graph: q.QuantGraph) -> bytes:
    """The `.tflite` of `graph`, the same bytes each time; raises Refused when the format cannot say it exactly."""
    graph.refuse_islands()
    refuse_all(graph.problems(), "calibrate with other rows, or keep the model in float")
    refuse_all(list(_inexpressible(graph)), "onnxruntime can run it")
    writer = _Writer(graph)
    assignments = quant_states.assignments(graph)
    for op in graph.ops:
        writer.read_states(op)
        WRITERS[type(op)](writer, op)
        for state in assignments.get(op.output, ()):
            writer.assign(state)
    return writer.finish()


def _inexpressible(graph: q.QuantGraph) -> Iterator[str]:
    for op in graph.ops:
        if isinstance(op, q.Pool) and op.mode == "average" and padding_name(graph, op) is None:
            yield f"{op.name}: averages whose padding {op.padding} is not counted have no form in TensorFlow Lite"


class _Writer:
    """The growing file beside the graph; tensors by name."""

    def __init__(self, graph: q.QuantGraph) -> None:
        self.graph = graph
        self.file = TfliteFile("tinyfleet")
        self.indices: dict[str, int] = {}
        self.handles: dict[str, int] = {}
        for name in graph.inputs:
            self.index(name)

    def index(self, name: str) -> int:
        """The index of an activation; only inputs and outputs keep their names, which weigh."""
        if name not in self.indices:
            tensor = self.graph.tensors[name]
            label = name if name in (*self.graph.inputs, *self.graph.outputs) else ""
            self.indices[name] = self.file.tensor(label, tensor.shape, tensor.scale, tensor.zero_point)
        return self.indices[name]

    def read_states(self, op: q.Op) -> None:
        """Read the variables that `op` is the first to need, or to make the next value of."""
        for state in self.graph.states:
            if {state.name, state.next} & {*op.inputs, op.output} and state.name not in self.handles:
                tensor = self.graph.tensors[state.name]
                handle = self.file.variable(state.name, state.first, tensor.scale, tensor.zero_point)
                self.handles[state.name] = handle
                self.file.operator(OPERATOR.READ_VARIABLE, 1, [handle], self.index(state.name))

    def assign(self, state: q.State) -> None:
        """What the next run reads."""
        inputs = [self.handles[state.name], self.index(state.next)]
        self.file.operator(OPERATOR.ASSIGN_VARIABLE, 1, inputs, None)

    def add(
        self, op: q.Op, code: int, version: int, options: Any = None, constants: tuple[int, ...] = ()
    ) -> None:
        """An operator that reads the tensors of `op`, then `constants`."""
        inputs = [*(self.index(name) for name in op.inputs), *constants]
        self.file.operator(code, version, inputs, self.index(op.output), options)

    def numbers(self, values: Any) -> int:
        """A constant of int32 numbers: shapes, axes, amounts."""
        return self.file.constant(np.array(values, np.int32))

    def weights(self, op: q.Weighted) -> tuple[int, int]:
        """The constants of weights and bias."""
        scales = op.weights.scales
        bias_scales = self.graph.tensor_of(op).scale * scales
        values = self.file.constant(op.weights.values, scales, op.channel_axis if scales.size > 1 else 0)
        return values, self.file.constant(op.weights.bias, bias_scales)

    def padded(self, op: Windowed) -> tuple[int, int]:
        """The index of the source and the padding to name; what has no name is padded in front."""
        known = padding_name(self.graph, op)
        if known is not None:
            return self.index(op.inputs[0]), PADDINGS[known]
        source, fill = self.graph.tensor_of(op), None
        if isinstance(op, q.Pool):
            fill = QMIN
        index = self.file.tensor("", padded_shape(source.shape, op.padding), source.scale, source.zero_point)
        self.pad(self.index(source.name), index, op.padding, source, fill)
        return index, schema.Padding.VALID

    def pad(self, source: int, target: int, padding: q.Padding, tensor: q.Tensor, fill: int | None) -> None:
        """Padding with zeros, or with the stored value `fill`."""
        top, left, bottom, right = padding
        amounts = self.numbers([[0, 0], [top, bottom], [left, right], [0, 0]])
        if fill is None:
            self.file.operator(OPERATOR.PAD, 2, [source, amounts], target, schema.PadOptionsT())
            return
        value = self.file.constant(
            np.array([fill], np.int8), np.array([tensor.scale]), zero_point=tensor.zero_point
        )
        self.file.operator(OPERATOR.PADV2, 2, [source, amounts, value], target, schema.PadV2OptionsT())

    def finish(self) -> bytes:
        """The file."""
        ends = [[self.index(name) for name in names] for names in (self.graph.inputs, self.graph.outputs)]
        return self.file.finish(*ends)


# --- operators -----------------------------------------------------------------------------------


def _conv(writer: _Writer, op: q.Conv | q.DepthwiseConv) -> None:
    depthwise = isinstance(op, q.DepthwiseConv)
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    source, options.padding = writer.padded(op)
    options.strideH, options.strideW = op.stride
    options.dilationHFactor, options.dilationWFactor = op.dilation
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    if depthwise:
        options.depthMultiplier = op.weights.values.shape[3] // writer.graph.tensor_of(op).shape[3]
    code = OPERATOR.DEPTHWISE_CONV_2D if depthwise else OPERATOR.CONV_2D
    writer.file.operator(code, 3, [source, *writer.weights(op)], writer.index(op.output), options)


def _fully_connected(writer: _Writer, op: q.FullyConnected) -> None:
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    version = 12 if op.weights.per_channel else 4
    writer.add(op, OPERATOR.FULLY_CONNECTED, version, options, writer.weights(op))


def _pool(writer: _Writer, op: q.Pool) -> None:
    options = schema.Pool2DOptionsT()
    source, options.padding = writer.padded(op)
    options.filterHeight, options.filterWidth = op.kernel
    options.strideH, options.strideW = op.stride
    code = OPERATOR.MAX_POOL_2D if op.mode == "max" else OPERATOR.AVERAGE_POOL_2D
    writer.file.operator(code, 2, [source], writer.index(op.output), options)


def _pad(writer: _Writer, op: q.Pad) -> None:
    source = writer.graph.tensor_of(op)
    writer.pad(writer.index(source.name), writer.index(op.output), op.padding, source, None)


def _mean(writer: _Writer, op: q.Mean) -> None:
    options = schema.ReducerOptionsT()
    options.keepDims = len(writer.graph.output_of(op).shape) == 4
    writer.add(op, OPERATOR.MEAN, 2, options, (writer.numbers([1, 2]),))


def _arithmetic(code: int, options: Any) -> Callable[[_Writer, Any], None]:
    def write(writer: _Writer, op: q.Add | q.Sub | q.Mul) -> None:
        filled = options()
        filled.fusedActivationFunction = ACTIVATIONS[op.activation]
        writer.add(op, code, 2, filled)

    return write


def _concat(writer: _Writer, op: q.Concat) -> None:
    options = schema.ConcatenationOptionsT()
    options.axis = op.axis
    writer.add(op, OPERATOR.CONCATENATION, 2, options)


def _clamp(writer: _Writer, op: q.Clamp) -> None:
    writer.add(op, OPERATOR.RELU6 if op.activation == "relu6" else OPERATOR.RELU, 2)


def _reshape(writer: _Writer, op: q.Reshape) -> None:
    shape = writer.graph.output_of(op).shape
    options = schema.ReshapeOptionsT()
    options.newShape = list(shape)
    writer.add(op, OPERATOR.RESHAPE, 1, options, (writer.numbers(shape),))


def _transpose(writer: _Writer, op: q.Transpose) -> None:
    writer.add(op, OPERATOR.TRANSPOSE, 2, schema.TransposeOptionsT(), (writer.numbers(op.order),))


def _enlarge(writer: _Writer, op: q.Enlarge) -> None:
    size = writer.numbers(writer.graph.output_of(op).shape[1:3])
    options = schema.ResizeNearestNeighborOptionsT()
    writer.add(op, OPERATOR.RESIZE_NEAREST_NEIGHBOR, 2, options, (size,))


def _constant(writer: _Writer, op: q.Constant) -> None:
    tensor = writer.graph.output_of(op)
    scales = np.array([tensor.scale])
    writer.indices[op.output] = writer.file.constant(op.values, scales, zero_point=tensor.zero_point)


def _slice(writer: _Writer, op: q.Slice) -> None:
    sizes = writer.graph.output_of(op).shape
    ends = [
        start + (size - 1) * step + 1 for start, size, step in zip(op.starts, sizes, op.steps, strict=True)
    ]
    constants = tuple(writer.numbers(values) for values in (op.starts, ends, op.steps))
    writer.add(op, OPERATOR.STRIDED_SLICE, 2, schema.StridedSliceOptionsT(), constants)


def _softmax(writer: _Writer, op: q.Softmax) -> None:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    writer.add(op, OPERATOR.SOFTMAX, 2, options)


def _look_up(writer: _Writer, op: q.LookUp) -> None:
    code, version, options = FUNCTIONS[op.function]
    filled = None if options is None else options()
    if filled is not None and op.function == "leaky_relu":
        filled.alpha = op.alpha
    writer.add(op, code, version, filled)


FUNCTIONS: dict[q.Function, tuple[int, int, Any]] = {
    "logistic": (OPERATOR.LOGISTIC, 2, None),
    "tanh": (OPERATOR.TANH, 2, None),
    "leaky_relu": (OPERATOR.LEAKY_RELU, 2, schema.LeakyReluOptionsT),
    "hard_swish": (OPERATOR.HARD_SWISH, 1, schema.HardSwishOptionsT),
    "requantize": (OPERATOR.QUANTIZE, 2, schema.QuantizeOptionsT),
}

WRITERS: dict[type[q.Op], Callable[[_Writer, Any], None]] = {
    q.Conv: _conv,
    q.DepthwiseConv: _conv,
    q.FullyConnected: _fully_connected,
    q.Add: _arithmetic(OPERATOR.ADD, schema.AddOptionsT),
    q.Sub: _arithmetic(OPERATOR.SUB, schema.SubOptionsT),
    q.Mul: _arithmetic(OPERATOR.MUL, schema.MulOptionsT),
    q.Pool: _pool,
    q.Mean: _mean,
    q.Concat: _concat,
    q.Clamp: _clamp,
    q.Pad: _pad,
    q.Reshape: _reshape,
    q.Transpose: _transpose,
    q.Slice: _slice,
    q.Enlarge: _enlarge,
    q.Constant: _constant,
    q.Softmax: _softmax,
    q.LookUp: _look_up,
}
