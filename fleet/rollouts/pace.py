"""How many devices are asked before the last ones have answered: waves open in parts.

Asking everybody of a wave at once exposes them all before the first failure is known. The first wave begins with a fifth
of itself; then a part is a share of what has answered, and as much as has answered once the evidence would allow the next
wave. Parts cost no soak, only the time of a delivery.
"""

import numpy as np
import numpy.typing as npt

# A canary that shows too little grows by this share of those asked: smaller exposes fewer, larger takes fewer looks.
EXTENSION = 0.4
FIRST_PART = 5

Counts = npt.NDArray[np.int64]


def extension(asked: int) -> int:
    """By how many devices a canary grows that showed too little."""
    return max(1, int(asked * EXTENSION))


def may_be_asked(answered: int, first_wave: int, proven: bool) -> int:
    """How many devices of a rollout may have been asked in all, once this many have answered and nobody is at work."""
    return answered + max(
        1, first_wave // FIRST_PART if not answered else 0, answered if proven else extension(answered)
    )


def parts(asked: Counts, goal: Counts, proven: npt.NDArray[np.bool_]) -> Counts:
    """The same for many imagined rollouts, of which all asked have answered."""
    first = np.where(asked == 0, goal // FIRST_PART, 0)
    share = np.where(proven, asked, (asked * EXTENSION).astype(np.int64))
    return np.minimum(goal, asked + np.maximum(1, np.maximum(first, share)))
