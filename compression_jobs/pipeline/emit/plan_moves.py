"""Operators of a plan that only move bytes, through a table or as they are; all of them are moves with steps."""

from collections.abc import Callable
from typing import Any

import numpy as np

from compression_jobs.pipeline.emit import plan_states
from compression_jobs.pipeline.emit.plan_states import UNSIGNED, kept
from compression_jobs.pipeline.emit.plan_writer import Writer
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_steps import sliced, steps_of
from compression_jobs.pipeline.graph.quant_tables import table
from device_agent.runtimes.plan import kinds
from device_agent.runtimes.plan.words import AXES


def places_of(writer: Writer, op: q.Op) -> dict[str, int]:
    """The words that say where an operator reads and writes."""
    return {"source": writer.offsets[op.inputs[0]], "target": writer.offsets[op.output]}


def _move(writer: Writer, source: int, target: int, sizes: Any, **words: int) -> None:
    """Bytes from packed to packed, unless steps are given; sizes and steps of up to four axes."""
    sizes = [1] * (AXES - len(sizes)) + [int(size) for size in sizes]
    packed = [int(np.prod(sizes[axis + 1 :])) for axis in range(AXES)]
    steps = {f"{side}{axis}": packed[axis] for side in "st" for axis in range(4 if side == "s" else 3)}
    plain = {"keep": 255, "flip": 0, "tabled": 0, "weights": 0}
    shape = {f"n{axis}": size for axis, size in enumerate(sizes)}
    writer.add(kinds.MOVE, source=source, target=target, **(shape | steps | plain | words))


def _look_up(writer: Writer, op: q.LookUp) -> None:
    answers = table(op, writer.graph.tensor_of(op), writer.graph.output_of(op))
    _table(writer, op, answers.astype(np.int64))


def _clamp(writer: Writer, op: q.Clamp) -> None:
    _table(writer, op, np.clip(np.arange(-128, 128), *writer.graph.bounds(op, op.activation)))


def _table(writer: Writer, op: q.Op, values: Any) -> None:
    start = writer.store((values + UNSIGNED).astype(np.uint8).tobytes())
    sizes = (writer.graph.output_of(op).size,)
    _move(writer, **places_of(writer, op), sizes=sizes, tabled=1, weights=start)


def _pad(writer: Writer, op: q.Pad) -> None:
    source, target = writer.graph.tensor_of(op), writer.graph.output_of(op)
    _, height, width, channels = source.shape
    row, at = target.shape[2] * channels, writer.offsets[target.name]
    _move(writer, at, at, (target.size,), keep=0, flip=target.zero_point + UNSIGNED)
    inside = at + op.padding[0] * row + op.padding[1] * channels
    _move(writer, writer.offsets[source.name], inside, (height, width * channels), t2=row)


def _concat(writer: Writer, op: q.Concat) -> None:
    target = writer.graph.output_of(op)
    step, at = int(np.prod(target.shape[op.axis :])), writer.offsets[target.name]
    for name in op.inputs:
        shape = writer.graph.tensors[name].shape
        run = int(np.prod(shape[op.axis :]))
        _move(writer, writer.offsets[name], at, (int(np.prod(shape[: op.axis])), run), t2=step)
        at += run


def _reshape(writer: Writer, op: q.Reshape) -> None:
    """The bytes stay where they are."""
    assert writer.offsets[op.inputs[0]] == writer.offsets[op.output]


def read_states(writer: Writer) -> None:
    """States that cannot be read where they lie are copied first."""
    for state in writer.graph.states:
        if not plan_states.starts_as_zeros(state):
            exchange(writer, state, writer.offsets[kept(state)], writer.offsets[state.name])


def exchange(writer: Writer, state: q.State, source: int, target: int) -> None:
    """A state from or to its place, where it lies as the exclusive or with its first value; nothing if it is there."""
    if source != target:
        for start, size, flip in plan_states.runs(state):
            _move(writer, source + start, target + start, (size,), flip=flip)


def _enlarge(writer: Writer, op: q.Enlarge) -> None:
    """A move for each row of the result that comes from one row of the source."""
    (down, across), places = op.factors, places_of(writer, op)
    _, height, width, channels = writer.graph.tensor_of(op).shape
    row = width * across * channels
    for place in range(down):
        _move(
            writer,
            places["source"],
            places["target"] + place * row,
            (height, width, across, channels),
            s0=width * channels,
            s1=channels,
            s2=0,
            t0=down * row,
            t1=across * channels,
            t2=channels,
        )


def _slice(writer: Writer, op: q.Slice) -> None:
    start, steps = sliced(writer.graph, op)
    places, sizes = places_of(writer, op), writer.graph.output_of(op).shape
    gather(writer, places["source"] + start, places["target"], sizes, steps)


def _transpose(writer: Writer, op: q.Transpose) -> None:
    steps = steps_of(writer.graph.tensor_of(op))
    sizes = writer.graph.output_of(op).shape
    gather(writer, **places_of(writer, op), sizes=sizes, steps=[steps[axis] for axis in op.order])


def gather(writer: Writer, source: int, target: int, sizes: Any, steps: list[int]) -> None:
    """Packed bytes from bytes that lie `steps` apart on each axis."""
    four = ([0] * AXES + steps)[-AXES:]
    _move(writer, source, target, sizes[-AXES:], **{f"s{axis}": step for axis, step in enumerate(four)})


EMITTERS: dict[type[q.Op], Callable[..., None]] = {
    q.Clamp: _clamp,
    q.LookUp: _look_up,
    q.Pad: _pad,
    q.Concat: _concat,
    q.Reshape: _reshape,
    q.Transpose: _transpose,
    q.Slice: _slice,
    q.Enlarge: _enlarge,
}
