"""Rows for models that keep a state from one run to the next: a row is a stream, run step by step from the first state.

Its score is the answer to its last step. A row is (steps, *input), or the steps one behind the other along the input's first
axis: a spectrogram of (60, 40) is 20 steps of an input of (3, 40). A row of the input's own shape is a stream of one step.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.errors import Refused

Array = npt.NDArray[Any]
SELF_TEST_STEPS = 32  # of a stream are enough, and a board runs them in one go


def count(row: list[int], wanted: list[int]) -> int:
    """How many steps a row of this shape has for an input of that shape without its batch; 0 when it is no stream."""
    if row == wanted:
        return 1
    if row[1:] == wanted:
        return row[0]
    follows = bool(wanted) and len(row) == len(wanted) and row[1:] == wanted[1:] and not row[0] % wanted[0]
    return row[0] // wanted[0] if follows else 0


def steps_of(rows: Array, size: int) -> Array:
    """Rows as (rows, steps, numbers of one input); raises Refused when they are no whole number of inputs."""
    numbers = int(np.prod(rows.shape[1:]))
    if numbers % size:
        raise Refused(f"a row has {numbers} numbers, no whole number of inputs of {size}")
    return rows.reshape(len(rows), numbers // size, size)
