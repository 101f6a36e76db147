"""Writes a QuantGraph as a plan: operators in order, arena offsets, integer multipliers, weights in aligned rows.

The format is defined on the device's side (`device_agent.runtimes.plan.layout` and `.words`).
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from compression_jobs.pipeline.emit import plan_states
from compression_jobs.pipeline.emit.plan_arena import is_direct, place, scratch
from compression_jobs.pipeline.emit.plan_states import UNSIGNED, kept
from compression_jobs.pipeline.errors import refuse_all
from compression_jobs.pipeline.graph import quant_states
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_arithmetic import (
    QMAX,
    QMIN,
    mean_multiplier,
    quantize_multipliers,
)
from compression_jobs.pipeline.graph.quant_softmax import (
    FORTY_EIGHT_17THS,
    THIRTY_TWO_17THS,
    exponentials_of_differences,
)
from compression_jobs.pipeline.graph.quant_tables import table
from compression_jobs.pipeline.graph.quant_windows import kernel_of
from device_agent.runtimes.plan import kinds
from device_agent.runtimes.plan import layout as p
from device_agent.runtimes.plan.words import AXES, WITHOUT_STATE, WORDS


def emit(graph: q.QuantGraph) -> bytes:
    """The plan file of `graph`, the same bytes each time; raises Refused when arithmetic would not be exact."""
    graph.refuse_islands()
    problems = [problem for op in graph.ops for problem in _problems_of(graph, op)]
    problems += [problem for state in graph.states for problem in plan_states.problems(state)]
    refuse_all(problems, "use onnxruntime for this model, or change these operators")
    refuse_all(graph.problems(), "calibrate with other rows, or keep the model in float")
    writer = _Writer(graph)
    _read_states(writer)
    assignments = quant_states.assignments(graph)
    for op in graph.ops:
        EMITTERS[type(op)](writer, op)
        for state in assignments.get(op.output, ()):
            _exchange(writer, state, writer.offsets[state.next], writer.offsets[kept(state)])
    return writer.finish()


def _problems_of(graph: q.QuantGraph, op: q.Op) -> list[str]:
    if type(op) not in EMITTERS:
        names = ", ".join(kind.__name__ for kind in EMITTERS)
        return [f"{op.name}: {type(op).__name__} is not in the micropython operator table ({names})"]
    if isinstance(op, q.Softmax) and graph.tensor_of(op).shape[-1] > p.SOFTMAX_WIDTH:
        return [f"{op.name}: softmax over more than {p.SOFTMAX_WIDTH} values leaves 32-bit arithmetic"]
    if isinstance(op, q.Transpose | q.Mul | q.Slice) and len(graph.output_of(op).shape) > AXES:
        return [f"{op.name}: more than {AXES} axes"]
    return []


class _Writer:
    """Collects operators and weights; offsets of tensors and scratch come from the memory planner."""

    def __init__(self, graph: q.QuantGraph) -> None:
        self.graph = graph
        self.operators: list[tuple[int, dict[str, int]]] = []
        self.weights = bytearray()
        self.offsets, self.arena_bytes = place(graph)

    def add(self, kind: int, **words: int) -> None:
        """One operator with its words by name."""
        self.operators.append((kind, words))

    def store(self, data: bytes) -> int:
        """Append weights, aligned for 32-bit loads, and return where they start."""
        self.weights += bytes(-len(self.weights) % 4)
        start = len(self.weights)
        self.weights += data
        return start

    def finish(self) -> bytes:
        """The file."""
        graph = self.graph
        edges = b"".join(self._edge(name) for name in (*graph.inputs, *graph.outputs))
        operators = b"".join(_operator(kind, words) for kind, words in self.operators)
        end = p.HEADER_BYTES + len(edges) + len(operators)
        start = end + -end % 16
        sizes = (len(self.operators), self.arena_bytes, start, len(self.weights))
        version = p.VERSION if graph.states else WITHOUT_STATE
        head = struct.pack(p.HEADER, p.MAGIC, version, *sizes, len(graph.inputs), len(graph.outputs))
        return head + edges + operators + bytes(start - end) + bytes(self.weights)

    def _edge(self, name: str) -> bytes:
        tensor = self.graph.tensors[name]
        zero = tensor.zero_point + UNSIGNED
        return struct.pack(p.EDGE, self.offsets[name], tensor.size, zero, np.float32(tensor.scale))


def _operator(kind: int, words: dict[str, int]) -> bytes:
    names = WORDS[kind]
    assert set(words) == set(names), set(words) ^ set(names)
    values = [int(words[name]) for name in names]
    return struct.pack(p.OPERATOR, kind, len(values)) + struct.pack(f"<{len(values)}I", *values)


# --- operators -----------------------------------------------------------------------------------


def _rows(matrix: Any, bias: Any, multipliers: Any, shifts: Any, group: int) -> bytes:
    """One row a channel: bias + 2^30, multiplier, shifts, unsigned weights padded with zeros to whole groups."""
    out = bytearray()
    for row, offset, multiplier, shift in zip(matrix, bias, multipliers, shifts, strict=True):
        shifts_word = max(int(shift), 0) << 6 | max(-int(shift), 0)
        out += struct.pack("<III", int(offset) + (1 << 30), int(multiplier), shifts_word)
        stored = (row.astype(np.int16) + UNSIGNED).astype(np.uint8).tobytes()
        out += stored + bytes(-len(stored) % group)
    return bytes(out)


def _weighted(writer: _Writer, op: q.Weighted, matrix: Any, group: int) -> dict[str, int]:
    """The words every weighted operator shares; `matrix` is (output channels, weights of one)."""
    graph = writer.graph
    source, target = graph.tensor_of(op), graph.output_of(op)
    zero_in = source.zero_point + UNSIGNED
    folded = op.weights.bias.astype(np.int64) - zero_in * matrix.astype(np.int64).sum(axis=1)
    rows = _rows(matrix, folded, *graph.requantization(op), group)
    return {
        **_places(writer, op),
        **_clamped(*graph.bounds(op, op.activation)),
        "zero_in": zero_in,
        "zero_out": target.zero_point + UNSIGNED,
        "weights": writer.store(rows),
        "row_bytes": len(rows) // len(matrix),
        "groups": -(-matrix.shape[1] // p.GROUP),
    }


def _convolution(writer: _Writer, op: q.Conv | q.DepthwiseConv) -> None:
    depthwise = isinstance(op, q.DepthwiseConv)
    values, direct = op.weights.values, is_direct(op)
    matrix = values[0].reshape(-1, values.shape[3]).T if depthwise else values.reshape(len(values), -1)
    writer.add(
        kinds.CONVOLVE,
        **_weighted(writer, op, matrix, 4 if depthwise else p.GROUP),
        **_window(writer.graph, op, kernel_of(op), op.stride),
        dilation_h=op.dilation[0],
        dilation_w=op.dilation[1],
        pad_top=op.padding[0],
        pad_left=op.padding[1],
        direct=int(direct),
        scratch=0 if direct else writer.offsets[scratch(op, op.inputs[0])],
        times=values.shape[3] // writer.graph.tensor_of(op).shape[3] if depthwise else 0,
    )


def _window(graph: q.QuantGraph, op: q.Op, kernel: q.Pair, stride: q.Pair) -> dict[str, int]:
    _, in_h, in_w, in_c = graph.tensor_of(op).shape
    _, out_h, out_w, out_c = graph.output_of(op).shape
    sizes = {"in_h": in_h, "in_w": in_w, "in_c": in_c, "out_h": out_h, "out_w": out_w, "out_c": out_c}
    return {**sizes, "k_h": kernel[0], "k_w": kernel[1], "stride_h": stride[0], "stride_w": stride[1]}


def _dense(writer: _Writer, op: q.FullyConnected) -> None:
    outputs, inputs = op.weights.values.shape
    rows = writer.graph.tensor_of(op).size // inputs
    ones = ("in_w", "out_w", "k_h", "k_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "direct")
    writer.add(
        kinds.CONVOLVE,
        **_weighted(writer, op, op.weights.values, p.GROUP),
        **dict.fromkeys(ones, 1),
        **dict.fromkeys(("pad_top", "pad_left", "scratch", "times"), 0),
        in_h=rows,
        out_h=rows,
        in_c=inputs,
        out_c=outputs,
    )


def _places(writer: _Writer, op: q.Op) -> dict[str, int]:
    return {"source": writer.offsets[op.inputs[0]], "target": writer.offsets[op.output]}


def _clamped(low: int, high: int) -> dict[str, int]:
    return {"low": low + UNSIGNED, "high": high + UNSIGNED}


def _factor(name: str, multiplier: Any = 0, shift: Any = 0) -> dict[str, int]:
    """The words of one requantization."""
    left, right = max(int(shift), 0), max(-int(shift), 0)
    return {f"mult_{name}": int(multiplier), f"left_{name}": left, f"right_{name}": right}


def _rescale(writer: _Writer, op: q.Op, **words: int) -> None:
    """A sum, difference, product or mean; a mean reads its only input as both."""
    graph = writer.graph
    a, b, target = graph.tensor_of(op), graph.tensor_of(op, len(op.inputs) - 1), graph.output_of(op)
    places = {"a": writer.offsets[a.name], "b": writer.offsets[b.name], "target": writer.offsets[target.name]}
    places = {name: words.pop(name, at) for name, at in places.items()}
    zeros = {f"zero_{n}": t.zero_point + UNSIGNED for n, t in (("a", a), ("b", b), ("out", target))}
    unused = {
        **_factor("a"),
        **_factor("b"),
        "outer": 1,
        "inner": target.size,
        "count": 1,
        "first": 2,
        "combine": 0,
    }
    writer.add(kinds.RESCALE, **places, **zeros, **(unused | words))


def _add(writer: _Writer, op: q.Add | q.Sub) -> None:
    graph = writer.graph
    a, b, target = graph.tensor_of(op), graph.tensor_of(op, 1), graph.output_of(op)
    common = 2 * max(a.scale, b.scale)
    scales = {"a": a.scale / common, "b": b.scale / common, "o": common / ((1 << 20) * target.scale)}
    words: dict[str, int] = {}
    for name, real in scales.items():
        words |= _factor(name, *quantize_multipliers(np.array(real)))
    bounds = _clamped(*graph.bounds(op, op.activation))
    _rescale(writer, op, **words, **bounds, first=0, combine=int(isinstance(op, q.Sub)))


def _mul(writer: _Writer, op: q.Mul) -> None:
    bounds = _clamped(*writer.graph.bounds(op, op.activation))
    places = {side: _repeated(writer, op, name) for side, name in zip("ab", op.inputs, strict=True)}
    factor = _factor("o", *writer.graph.product_multiplier(op))
    _rescale(writer, op, **factor, **bounds, **places, combine=1)


def _repeated(writer: _Writer, op: q.Mul, name: str) -> int:
    """Where a factor lies at the size of the product: sizes of 1 are repeated first, by steps of 0."""
    source, target = writer.graph.tensors[name], writer.graph.output_of(op)
    if source.shape == target.shape:
        return writer.offsets[name]
    steps = [0 if size == 1 else step for size, step in zip(source.shape, _steps(source.shape), strict=True)]
    at = writer.offsets[scratch(op, name)]
    _gather(writer, writer.offsets[name], at, target.shape, steps)
    return at


def _mean(writer: _Writer, op: q.Mean) -> None:
    _, height, width, channels = writer.graph.tensor_of(op).shape
    factor = _factor("o", *_mean_multiplier(writer.graph, op))
    _rescale(writer, op, **factor, **_clamped(QMIN, QMAX), inner=channels, count=height * width)


def _mean_multiplier(graph: q.QuantGraph, op: q.Mean) -> tuple[int, int]:
    source = graph.tensor_of(op)
    return mean_multiplier(source.scale / graph.output_of(op).scale, source.shape[1] * source.shape[2])


def _pool(writer: _Writer, op: q.Pool) -> None:
    writer.add(
        kinds.POOL,
        **_places(writer, op),
        **_window(writer.graph, op, op.kernel, op.stride),
        pad_top=op.padding[0],
        pad_left=op.padding[1],
        largest=int(op.mode == "max"),
    )


def _softmax(writer: _Writer, op: q.Softmax) -> None:
    source = writer.graph.tensor_of(op)
    width = source.shape[-1]
    constants = [*exponentials_of_differences(source.scale), FORTY_EIGHT_17THS, THIRTY_TWO_17THS]
    words = {
        "rows": source.size // width,
        "width": width,
        "weights": writer.store(struct.pack(f"<{p.SOFTMAX_TABLE}I", *constants)),
    }
    writer.add(kinds.SOFTMAX, **_places(writer, op), **words)


# --- operators that only move bytes ----------------------------------------------------------------


def _move(writer: _Writer, source: int, target: int, sizes: Any, **words: int) -> None:
    """Bytes from packed to packed, unless steps are given; sizes and steps of up to four axes."""
    sizes = [1] * (AXES - len(sizes)) + [int(size) for size in sizes]
    packed = [int(np.prod(sizes[axis + 1 :])) for axis in range(AXES)]
    steps = {f"{side}{axis}": packed[axis] for side in "st" for axis in range(4 if side == "s" else 3)}
    plain = {"keep": 255, "flip": 0, "tabled": 0, "weights": 0}
    shape = {f"n{axis}": size for axis, size in enumerate(sizes)}
    writer.add(kinds.MOVE, source=source, target=target, **(shape | steps | plain | words))


def _look_up(writer: _Writer, op: q.LookUp) -> None:
    answers = table(op, writer.graph.tensor_of(op), writer.graph.output_of(op))
    _table(writer, op, answers.astype(np.int64))


def _clamp(writer: _Writer, op: q.Clamp) -> None:
    _table(writer, op, np.clip(np.arange(-128, 128), *writer.graph.bounds(op, op.activation)))


def _table(writer: _Writer, op: q.Op, values: Any) -> None:
    start = writer.store((values + UNSIGNED).astype(np.uint8).tobytes())
    sizes = (writer.graph.output_of(op).size,)
    _move(writer, **_places(writer, op), sizes=sizes, tabled=1, weights=start)


def _pad(writer: _Writer, op: q.Pad) -> None:
    source, target = writer.graph.tensor_of(op), writer.graph.output_of(op)
    _, height, width, channels = source.shape
    row, at = target.shape[2] * channels, writer.offsets[target.name]
    _move(writer, at, at, (target.size,), keep=0, flip=target.zero_point + UNSIGNED)
    inside = at + op.padding[0] * row + op.padding[1] * channels
    _move(writer, writer.offsets[source.name], inside, (height, width * channels), t2=row)


def _concat(writer: _Writer, op: q.Concat) -> None:
    target = writer.graph.output_of(op)
    step, at = int(np.prod(target.shape[op.axis :])), writer.offsets[target.name]
    for name in op.inputs:
        shape = writer.graph.tensors[name].shape
        run = int(np.prod(shape[op.axis :]))
        _move(writer, writer.offsets[name], at, (int(np.prod(shape[: op.axis])), run), t2=step)
        at += run


def _reshape(writer: _Writer, op: q.Reshape) -> None:
    """The bytes stay where they are."""
    assert writer.offsets[op.inputs[0]] == writer.offsets[op.output]


def _read_states(writer: _Writer) -> None:
    """States that cannot be read where they lie are copied first."""
    for state in writer.graph.states:
        if not plan_states.starts_as_zeros(state):
            _exchange(writer, state, writer.offsets[kept(state)], writer.offsets[state.name])


def _exchange(writer: _Writer, state: q.State, source: int, target: int) -> None:
    """A state from or to its place, where it lies as the exclusive or with its first value; nothing if it is there."""
    if source != target:
        for start, size, flip in plan_states.runs(state):
            _move(writer, source + start, target + start, (size,), flip=flip)


def _slice(writer: _Writer, op: q.Slice) -> None:
    steps = _steps(writer.graph.tensor_of(op).shape)
    start = sum(at * step for at, step in zip(op.starts, steps, strict=True))
    places = _places(writer, op)
    sizes, taken = writer.graph.output_of(op).shape, zip(op.steps, steps, strict=True)
    _gather(writer, places["source"] + start, places["target"], sizes, [a * b for a, b in taken])


def _transpose(writer: _Writer, op: q.Transpose) -> None:
    steps = _steps(writer.graph.tensor_of(op).shape)
    sizes = writer.graph.output_of(op).shape
    _gather(writer, **_places(writer, op), sizes=sizes, steps=[steps[axis] for axis in op.order])


def _gather(writer: _Writer, source: int, target: int, sizes: Any, steps: list[int]) -> None:
    """Packed bytes from bytes that lie `steps` apart on each axis."""
    four = [0] * (AXES - len(steps)) + steps
    _move(writer, source, target, sizes, **{f"s{axis}": step for axis, step in enumerate(four)})


def _steps(shape: tuple[int, ...]) -> list[int]:
    """Bytes between neighbours on each axis."""
    return [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]


EMITTERS: dict[type[q.Op], Callable[..., None]] = {
    q.Conv: _convolution,
    q.DepthwiseConv: _convolution,
    q.FullyConnected: _dense,
    q.Add: _add,
    q.Sub: _add,
    q.Mul: _mul,
    q.Pool: _pool,
    q.Mean: _mean,
    q.Softmax: _softmax,
    q.Clamp: _clamp,
    q.LookUp: _look_up,
    q.Pad: _pad,
    q.Concat: _concat,
    q.Reshape: _reshape,
    q.Transpose: _transpose,
    q.Slice: _slice,
}
