"""Writes a QuantGraph as plain C99: one static arena, no dependency, results of TFLM's reference kernels.

The folder holds `model.h` (a function that runs the model, and one that forgets what runs have left), `model.c`, and a
test of its own: `test_main.c`, `test_vector.h` and a CMakeLists.txt. On the way out all of it is one `.zip`, the same
bytes each time.
"""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from compression_jobs.pipeline.emit.c_kernels import text_of
from compression_jobs.pipeline.emit.c_text import (
    CMAKE,
    TEST_MAIN,
    array,
    comment,
    header,
    initializer,
    reset_function,
)
from compression_jobs.pipeline.errors import refuse_all
from compression_jobs.pipeline.graph import quant_reference, quant_states
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_arithmetic import mean_multiplier, quantize_multipliers
from compression_jobs.pipeline.graph.quant_memory import inner_plan, shared
from compression_jobs.pipeline.graph.quant_softmax import exponentials_of_differences
from compression_jobs.pipeline.graph.quant_steps import repeating, sliced, steps_of
from compression_jobs.pipeline.graph.quant_tables import table

TEST_ROWS = 8
TEST_BYTES = 64 << 10  # of numbers in test_vector.h, so that it stays smaller than most models
EARLIEST = (1980, 1, 1, 0, 0, 0)


def emit(graph: q.QuantGraph) -> bytes:
    """All files as one `.zip`; raises Refused when arithmetic would not be exact."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files(graph).items():
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def files(graph: q.QuantGraph) -> dict[str, str]:
    """Name and text of every file."""
    graph.refuse_islands()
    refuse_all(graph.problems(), "calibrate with other rows, or keep the model in float")
    writer = _Writer(graph)
    assignments = quant_states.assignments(graph)
    for position, op in enumerate(graph.ops):
        writer.begin(position, op)
        WRITERS[type(op)](writer, op)
        for state in assignments.get(op.output, ()):
            writer.assign(state)
    return {
        "model.h": header(graph, writer.arena_bytes),
        "model.c": writer.finish(),
        "test_vector.h": _test_vector(graph),
        "test_main.c": TEST_MAIN,
        "CMakeLists.txt": CMAKE,
    }


class _Writer:
    """Constants, calls and the functions that they need."""

    def __init__(self, graph: q.QuantGraph) -> None:
        self.graph = graph
        self.offsets, self.arena_bytes = inner_plan(graph)
        self.owner = shared(graph)
        self.edges = {**_edges(graph, graph.inputs, "input"), **_edges(graph, graph.outputs, "output")}
        self.kept = _edges(graph, [state.name for state in graph.states], "state")
        self.stored: dict[str, str] = {}
        self.used: set[str] = set()
        self.constants: list[str] = []
        self.calls: list[str] = []
        self.stem = ""

    def begin(self, position: int, op: q.Op) -> None:
        """What follows belongs to this operator."""
        self.stem = f"op{position}"
        self.calls.append(f"    /* {comment(op.name)} */")

    def place(self, name: str) -> str:
        """Where a tensor lies, as a C expression."""
        owner = self.owner[name]
        known = self.edges.get(name) or self.kept.get(owner) or self.stored.get(owner)
        return known or f"arena + {self.offsets[name]}"

    def assign(self, state: q.State) -> None:
        """What the next run reads, unless it lies there already."""
        if self.place(state.next) != self.place(state.name):
            self.calls.append(
                f"    memcpy({self.place(state.name)}, {self.place(state.next)}, {state.first.size});"
            )

    def call(self, function: str, *arguments: Any) -> None:
        """One call; the function comes along."""
        self.used.add(function)
        self.calls.append(f"    {function}({', '.join(str(argument) for argument in arguments)});")

    def constant(self, suffix: str, kind: str, values: Any) -> str:
        """A constant array of this operator; returns its name."""
        name = f"{self.stem}_{suffix}"
        self.constants.append(array(name, kind, np.asarray(values).ravel()))
        return name

    def record(self, kind: str, values: list[Any]) -> str:
        """A constant struct of this operator; returns its address."""
        self.constants.append(f"static const {kind} {self.stem} = {initializer(values)};\n")
        return f"&{self.stem}"

    def finish(self) -> str:
        """The text of model.c."""
        parts = ['#include "model.h"\n\n#include <string.h>\n', text_of(self.used), "\n", *self.constants]
        if self.arena_bytes:
            parts.append("\nstatic int8_t arena[MODEL_ARENA_BYTES];\n")
        if self.kept:
            parts.append(reset_function(self.graph.states, self.kept))
            self.calls.insert(0, "    if (!started)\n        model_reset();")
        body = "\n".join(self.calls)
        parts.append(f"\nvoid model_run(const int8_t *input, int8_t *output)\n{{\n{body}\n}}\n")
        return "".join(parts)


def _edges(graph: q.QuantGraph, names: list[str], pointer: str) -> dict[str, str]:
    places, at = {}, 0
    for name in names:
        places[name] = f"{pointer} + {at}" if at else pointer
        at += graph.tensors[name].size
    return places


def _test_vector(graph: q.QuantGraph) -> str:
    chance = np.random.default_rng(0)
    width = sum(graph.tensors[name].size for name in (*graph.inputs, *graph.outputs))
    count = max(1, min(TEST_ROWS, TEST_BYTES // width))
    inputs = {
        name: chance.integers(-128, 128, (count, *graph.tensors[name].shape[1:])).astype(np.int8)
        for name in graph.inputs
    }
    values = quant_reference.run(graph, inputs)
    rows = [
        np.concatenate([values[name].reshape(count, -1) for name in names], axis=1)
        for names in (graph.inputs, graph.outputs)
    ]
    return (
        f"/* Rows and the answers that they must give. */\n#define TEST_COUNT {count}\n\n"
        f"{array('test_inputs', 'int8_t', rows[0].ravel())}{array('test_outputs', 'int8_t', rows[1].ravel())}"
    )


# --- operators -----------------------------------------------------------------------------------


def _window(graph: q.QuantGraph, op: Any, kernel: q.Pair, dilation: q.Pair) -> list[Any]:
    source, target = graph.tensor_of(op).shape, graph.output_of(op).shape
    return [*source[1:], *target[1:], *kernel, *op.stride, *dilation, *op.padding[:2]]


def _layer(writer: _Writer, op: q.Weighted, window: list[Any], function: str) -> None:
    graph = writer.graph
    multipliers, shifts = graph.requantization(op)
    zeros = [graph.tensor_of(op).zero_point, graph.output_of(op).zero_point]
    names = [
        writer.constant("weights", "int8_t", op.weights.values),
        writer.constant("bias", "int32_t", op.weights.bias),
        writer.constant("multipliers", "int32_t", multipliers),
        writer.constant("shifts", "int8_t", shifts),
    ]
    record = writer.record("layer", [window, *zeros, *graph.bounds(op, op.activation), *names])
    writer.call(function, record, writer.place(op.inputs[0]), writer.place(op.output))


def _conv(writer: _Writer, op: q.Conv | q.DepthwiseConv) -> None:
    kernel = int(op.weights.values.shape[1]), int(op.weights.values.shape[2])
    function = "depthwise" if isinstance(op, q.DepthwiseConv) else "convolution"
    _layer(writer, op, _window(writer.graph, op, kernel, op.dilation), function)


def _fully_connected(writer: _Writer, op: q.FullyConnected) -> None:
    """A convolution over a picture of one pixel."""
    outputs, inputs = op.weights.values.shape
    _layer(writer, op, [1, 1, inputs, 1, 1, outputs, 1, 1, 1, 1, 1, 1, 0, 0], "convolution")


def _pool(writer: _Writer, op: q.Pool) -> None:
    record = writer.record("window", _window(writer.graph, op, op.kernel, (1, 1)))
    writer.call(f"{op.mode}_pool", record, writer.place(op.inputs[0]), writer.place(op.output))


def _mean(writer: _Writer, op: q.Mean) -> None:
    source, target = writer.graph.tensor_of(op), writer.graph.output_of(op)
    _, height, width, channels = source.shape
    numbers = mean_multiplier(source.scale / target.scale, height * width)
    zeros = source.zero_point, target.zero_point
    places = writer.place(source.name), writer.place(target.name)
    writer.call("mean", *places, height * width, channels, *zeros, *numbers)


def _sum(writer: _Writer, op: q.Add | q.Sub) -> None:
    graph = writer.graph
    sources, target = [graph.tensor_of(op, index) for index in range(2)], graph.output_of(op)
    common = 2 * max(source.scale for source in sources)
    multipliers, shifts = quantize_multipliers(np.array([source.scale / common for source in sources]))
    last = quantize_multipliers(np.array(common / ((1 << quant_reference.ADD_LEFT_SHIFT) * target.scale)))
    fields = [*_sides(sources, target), [source.zero_point for source in sources], multipliers, shifts]
    sign = -1 if isinstance(op, q.Sub) else 1
    record = writer.record(
        "addition", [*fields, sign, *last, target.zero_point, *graph.bounds(op, op.activation)]
    )
    writer.call("add", record, *(writer.place(name) for name in (*op.inputs, op.output)))


def _product(writer: _Writer, op: q.Mul) -> None:
    graph = writer.graph
    sources, target = [graph.tensor_of(op, index) for index in range(2)], graph.output_of(op)
    zeros = [source.zero_point for source in sources]
    fields = [
        *_sides(sources, target),
        *zeros,
        *graph.product_multiplier(op),
        target.zero_point,
        *graph.bounds(op, op.activation),
    ]
    writer.call("multiply", writer.record("product", fields), *map(writer.place, (*op.inputs, op.output)))


def _sides(sources: list[q.Tensor], target: q.Tensor) -> list[list[int]]:
    """The size of the result, and the steps through both sides: 0 where a size of 1 is repeated."""
    return [_four(target.shape), *(_last_four(repeating(source)) for source in sources)]


def _last_four(steps: list[int]) -> list[int]:
    return [0, 0, 0, 0, *steps][-4:]


def _four(shape: tuple[int, ...]) -> list[int]:
    return [1, 1, 1, 1, *shape][-4:]


def _concat(writer: _Writer, op: q.Concat) -> None:
    shape = writer.graph.output_of(op).shape
    inner, rows = int(np.prod(shape[op.axis + 1 :])), int(np.prod(shape[: op.axis]))
    at = 0
    for name in op.inputs:
        taken = writer.graph.tensors[name].shape[op.axis] * inner
        target = f"{writer.place(op.output)} + {at}"
        writer.call("copy_rows", writer.place(name), target, rows, taken, shape[op.axis] * inner)
        at += taken


def _pad(writer: _Writer, op: q.Pad) -> None:
    source, target = writer.graph.tensor_of(op), writer.graph.output_of(op)
    _, height, width, channels = source.shape
    row, place = target.shape[2] * channels, writer.place(target.name)
    writer.calls.append(f"    memset({place}, {target.zero_point}, {target.size});")
    start = op.padding[0] * row + op.padding[1] * channels
    writer.call("copy_rows", writer.place(source.name), f"{place} + {start}", height, width * channels, row)


def _reshape(writer: _Writer, op: q.Reshape) -> None:
    if writer.owner[op.output] == op.output:
        size = writer.graph.output_of(op).size
        writer.calls.append(f"    memcpy({writer.place(op.output)}, {writer.place(op.inputs[0])}, {size});")


def _constant(writer: _Writer, op: q.Constant) -> None:
    """It stays where it is stored; an output of the model is the caller's, and is copied."""
    name = writer.constant("values", "int8_t", op.values)
    if op.output in writer.edges:
        writer.calls.append(f"    memcpy({writer.place(op.output)}, {name}, {op.values.size});")
    else:
        writer.stored[op.output] = name


def _transpose(writer: _Writer, op: q.Transpose) -> None:
    steps = steps_of(writer.graph.tensor_of(op))
    _gather(writer, op, writer.place(op.inputs[0]), [steps[axis] for axis in op.order])


def _slice(writer: _Writer, op: q.Slice) -> None:
    start, steps = sliced(writer.graph, op)
    _gather(writer, op, f"{writer.place(op.inputs[0])} + {start}", steps)


def _enlarge(writer: _Writer, op: q.Enlarge) -> None:
    size = writer.constant("size", "int32_t", writer.graph.tensor_of(op).shape[1:])
    writer.call("enlarge", writer.place(op.inputs[0]), writer.place(op.output), size, *op.factors)


def _gather(writer: _Writer, op: q.Op, source: str, steps: list[int]) -> None:
    """Bytes that lie `steps` apart on each axis, one after the other."""
    target = writer.graph.output_of(op)
    names = [
        writer.constant("size", "int32_t", _four(target.shape)),
        writer.constant("step", "int32_t", _last_four(steps)),
    ]
    writer.call("permute", source, writer.place(target.name), *names)


def _clamp(writer: _Writer, op: q.Clamp) -> None:
    bounds = writer.graph.bounds(op, op.activation)
    places = writer.place(op.inputs[0]), writer.place(op.output)
    writer.call("limit", *places, writer.graph.output_of(op).size, *bounds)


def _look_up(writer: _Writer, op: q.LookUp) -> None:
    source, target = writer.graph.tensor_of(op), writer.graph.output_of(op)
    name = writer.constant("table", "int8_t", table(op, source, target))
    writer.call("look_up", writer.place(source.name), writer.place(target.name), target.size, name)


def _softmax(writer: _Writer, op: q.Softmax) -> None:
    source = writer.graph.tensor_of(op)
    name = writer.constant("table", "int32_t", exponentials_of_differences(source.scale))
    width = source.shape[-1]
    places = writer.place(source.name), writer.place(op.output)
    writer.call("softmax", *places, source.size // width, width, name)


WRITERS: dict[type[q.Op], Callable[[_Writer, Any], None]] = {
    q.Conv: _conv,
    q.DepthwiseConv: _conv,
    q.FullyConnected: _fully_connected,
    q.Pool: _pool,
    q.Mean: _mean,
    q.Add: _sum,
    q.Sub: _sum,
    q.Mul: _product,
    q.Concat: _concat,
    q.Pad: _pad,
    q.Reshape: _reshape,
    q.Transpose: _transpose,
    q.Slice: _slice,
    q.Enlarge: _enlarge,
    q.Constant: _constant,
    q.Clamp: _clamp,
    q.LookUp: _look_up,
    q.Softmax: _softmax,
}
