"""How far apart in memory the elements lie that an operator reads on each axis of a tensor; an element is a byte."""

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q


def steps_of(tensor: q.Tensor) -> list[int]:
    """Bytes between neighbours on each axis."""
    return [int(np.prod(tensor.shape[axis + 1 :])) for axis in range(len(tensor.shape))]


def repeating(tensor: q.Tensor) -> list[int]:
    """The same where sizes of 1 are repeated: 0 on those axes."""
    return [0 if size == 1 else step for size, step in zip(tensor.shape, steps_of(tensor), strict=True)]


def sliced(graph: q.QuantGraph, op: q.Slice) -> tuple[int, list[int]]:
    """Where the first element that is taken lies, and bytes between those that are taken on each axis."""
    steps = steps_of(graph.tensor_of(op))
    start = sum(at * step for at, step in zip(op.starts, steps, strict=True))
    return start, [by * step for by, step in zip(op.steps, steps, strict=True)]
