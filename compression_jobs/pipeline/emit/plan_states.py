"""How a plan keeps a state: in a place of its own, which no other tensor uses.

What is loaded starts with an arena of zeros, and a state with its first value: so the place holds the exclusive or
of both. Where the first value is zeros in the arena, too (the int8 value -128: zero behind a relu), operators read and
write the place itself.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.graph import quantgraph as q

UNSIGNED = 128  # stored bytes are the int8 value plus this
MOST_RUNS = 64


def problems(state: q.State) -> list[str]:
    """What keeps a plan from starting with the first value of a state."""
    count = len(runs(state))
    if count <= MOST_RUNS:
        return []
    return [f"{state.name}: its first value has {count} runs of equal bytes, {MOST_RUNS} are the most"]


def kept(state: q.State) -> str:
    """What the place is called in which a state lies between runs."""
    return f"{state.name} kept"


def starts_as_zeros(state: q.State) -> bool:
    """Whether operators may read and write the place of a state itself."""
    return not _in_arena(state).any()


def runs(state: q.State) -> list[tuple[int, int, int]]:
    """Start, length and byte of each run of equal bytes in the first value of a state."""
    values = _in_arena(state)
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1), values.size]
    return [(int(at), int(end - at), int(values[at])) for at, end in pairwise(starts)]


def _in_arena(state: q.State) -> npt.NDArray[np.uint8]:
    return state.first.reshape(-1).view(np.uint8) ^ np.uint8(UNSIGNED)
