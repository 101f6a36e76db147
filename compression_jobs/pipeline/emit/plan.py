"""Writes a QuantGraph as a plan: operators in order, arena offsets, integer multipliers, weights in aligned rows.

The format is defined on the device's side (`device_agent.runtimes.plan.layout` and `.words`).
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from compression_jobs.pipeline.emit import plan_moves, plan_states
from compression_jobs.pipeline.emit.plan_arena import is_direct, scratch
from compression_jobs.pipeline.emit.plan_moves import exchange, gather, places_of, read_states
from compression_jobs.pipeline.emit.plan_states import UNSIGNED, kept
from compression_jobs.pipeline.emit.plan_writer import Writer
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
from compression_jobs.pipeline.graph.quant_steps import repeating
from compression_jobs.pipeline.graph.quant_windows import kernel_of
from device_agent.runtimes.plan import kinds
from device_agent.runtimes.plan import layout as p
from device_agent.runtimes.plan.words import AXES


def emit(graph: q.QuantGraph) -> bytes:
    """The plan file of `graph`, the same bytes each time; raises Refused when arithmetic would not be exact."""
    graph.refuse_islands()
    problems = [problem for op in graph.ops for problem in _problems_of(graph, op)]
    problems += [problem for state in graph.states for problem in plan_states.problems(state)]
    refuse_all(problems, "use onnxruntime for this model, or change these operators")
    refuse_all(graph.problems(), "calibrate with other rows, or keep the model in float")
    writer = Writer(graph)
    read_states(writer)
    assignments = quant_states.assignments(graph)
    for op in graph.ops:
        EMITTERS[type(op)](writer, op)
        for state in assignments.get(op.output, ()):
            exchange(writer, state, writer.offsets[state.next], writer.offsets[kept(state)])
    return writer.finish()


def _problems_of(graph: q.QuantGraph, op: q.Op) -> list[str]:
    if type(op) not in EMITTERS:
        names = ", ".join(kind.__name__ for kind in EMITTERS)
        return [f"{op.name}: {type(op).__name__} is not in the micropython operator table ({names})"]
    if isinstance(op, q.Softmax) and graph.tensor_of(op).shape[-1] > p.SOFTMAX_WIDTH:
        return [f"{op.name}: softmax over more than {p.SOFTMAX_WIDTH} values leaves 32-bit arithmetic"]
    if isinstance(op, q.Transpose | q.Slice) and len(graph.output_of(op).shape) > AXES + 1:
        return [f"{op.name}: more than {AXES} axes"]
    return []


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


def _weighted(writer: Writer, op: q.Weighted, matrix: Any, group: int) -> dict[str, int]:
    """The words every weighted operator shares; `matrix` is (output channels, weights of one)."""
    graph = writer.graph
    source, target = graph.tensor_of(op), graph.output_of(op)
    zero_in = source.zero_point + UNSIGNED
    folded = op.weights.bias.astype(np.int64) - zero_in * matrix.astype(np.int64).sum(axis=1)
    rows = _rows(matrix, folded, *graph.requantization(op), group)
    return {
        **places_of(writer, op),
        **_clamped(*graph.bounds(op, op.activation)),
        "zero_in": zero_in,
        "zero_out": target.zero_point + UNSIGNED,
        "weights": writer.store(rows),
        "row_bytes": len(rows) // len(matrix),
        "groups": -(-matrix.shape[1] // p.GROUP),
    }


def _convolution(writer: Writer, op: q.Conv | q.DepthwiseConv) -> None:
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


def _dense(writer: Writer, op: q.FullyConnected) -> None:
    outputs, inputs = op.weights.values.shape
    rows = writer.graph.tensor_of(op).size // inputs
    _matrix(writer, _weighted(writer, op, op.weights.values, p.GROUP), rows, inputs, outputs)


def _constant(writer: Writer, op: q.Constant) -> None:
    """A dense layer whose one weight is zero and whose biases are the values: kernels write only what they compute."""
    stored = (op.values.astype(np.int64) + UNSIGNED).ravel()
    multipliers, shifts = quantize_multipliers(np.ones(stored.size))
    rows = _rows(np.zeros((stored.size, 1), np.int8), stored, multipliers, shifts, p.GROUP)
    words = {
        "source": writer.offsets[scratch(op, "a byte")],
        "target": writer.offsets[op.output],
        **_clamped(QMIN, QMAX),
        "zero_in": 0,
        "zero_out": 0,
        "weights": writer.store(rows),
        "row_bytes": p.ROW_HEAD + p.GROUP,
        "groups": 1,
    }
    _matrix(writer, words, 1, 1, stored.size)


def _matrix(writer: Writer, words: dict[str, int], rows: int, inputs: int, outputs: int) -> None:
    """A convolution whose windows are rows of numbers."""
    ones = ("in_w", "out_w", "k_h", "k_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "direct")
    writer.add(
        kinds.CONVOLVE,
        **words,
        **dict.fromkeys(ones, 1),
        **dict.fromkeys(("pad_top", "pad_left", "scratch", "times"), 0),
        in_h=rows,
        out_h=rows,
        in_c=inputs,
        out_c=outputs,
    )


def _clamped(low: int, high: int) -> dict[str, int]:
    return {"low": low + UNSIGNED, "high": high + UNSIGNED}


def _factor(name: str, multiplier: Any = 0, shift: Any = 0) -> dict[str, int]:
    """The words of one requantization."""
    left, right = max(int(shift), 0), max(-int(shift), 0)
    return {f"mult_{name}": int(multiplier), f"left_{name}": left, f"right_{name}": right}


def _rescale(writer: Writer, op: q.Op, **words: int) -> None:
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


def _add(writer: Writer, op: q.Add | q.Sub) -> None:
    graph = writer.graph
    a, b, target = graph.tensor_of(op), graph.tensor_of(op, 1), graph.output_of(op)
    common = 2 * max(a.scale, b.scale)
    scales = {"a": a.scale / common, "b": b.scale / common, "o": common / ((1 << 20) * target.scale)}
    words: dict[str, int] = {}
    for name, real in scales.items():
        words |= _factor(name, *quantize_multipliers(np.array(real)))
    bounds = _clamped(*graph.bounds(op, op.activation))
    _rescale(writer, op, **words, **bounds, **_both(writer, op), first=0, combine=int(isinstance(op, q.Sub)))


def _mul(writer: Writer, op: q.Mul) -> None:
    bounds = _clamped(*writer.graph.bounds(op, op.activation))
    factor = _factor("o", *writer.graph.product_multiplier(op))
    _rescale(writer, op, **factor, **bounds, **_both(writer, op), combine=1)


def _both(writer: Writer, op: q.Add | q.Sub | q.Mul) -> dict[str, int]:
    """Where both terms or factors lie."""
    return {side: _repeated(writer, op, name) for side, name in zip("ab", op.inputs, strict=True)}


def _repeated(writer: Writer, op: q.Op, name: str) -> int:
    """Where a term or factor lies at the size of the result: sizes of 1 are repeated first, by steps of 0."""
    source, target = writer.graph.tensors[name], writer.graph.output_of(op)
    if source.shape == target.shape:
        return writer.offsets[name]
    at = writer.offsets[scratch(op, name)]
    gather(writer, writer.offsets[name], at, target.shape, repeating(source))
    return at


def _mean(writer: Writer, op: q.Mean) -> None:
    _, height, width, channels = writer.graph.tensor_of(op).shape
    factor = _factor("o", *_mean_multiplier(writer.graph, op))
    _rescale(writer, op, **factor, **_clamped(QMIN, QMAX), inner=channels, count=height * width)


def _mean_multiplier(graph: q.QuantGraph, op: q.Mean) -> tuple[int, int]:
    source = graph.tensor_of(op)
    return mean_multiplier(source.scale / graph.output_of(op).scale, source.shape[1] * source.shape[2])


def _pool(writer: Writer, op: q.Pool) -> None:
    writer.add(
        kinds.POOL,
        **places_of(writer, op),
        **_window(writer.graph, op, op.kernel, op.stride),
        pad_top=op.padding[0],
        pad_left=op.padding[1],
        largest=int(op.mode == "max"),
    )


def _softmax(writer: Writer, op: q.Softmax) -> None:
    source = writer.graph.tensor_of(op)
    width = source.shape[-1]
    constants = [*exponentials_of_differences(source.scale), FORTY_EIGHT_17THS, THIRTY_TWO_17THS]
    words = {
        "rows": source.size // width,
        "width": width,
        "weights": writer.store(struct.pack(f"<{p.SOFTMAX_TABLE}I", *constants)),
    }
    writer.add(kinds.SOFTMAX, **places_of(writer, op), **words)


EMITTERS: dict[type[q.Op], Callable[..., None]] = {
    **plan_moves.EMITTERS,
    q.Conv: _convolution,
    q.DepthwiseConv: _convolution,
    q.FullyConnected: _dense,
    q.Add: _add,
    q.Sub: _add,
    q.Mul: _mul,
    q.Pool: _pool,
    q.Mean: _mean,
    q.Softmax: _softmax,
    q.Constant: _constant,
}
