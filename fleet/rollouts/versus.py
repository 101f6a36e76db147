"""Which of two versions is better, from pairs of devices whose versions were tossed for; valid however often it looks.

The toss is all that is assumed: if it made no difference which of the two versions a device runs, the difference within
a pair would be as likely to have the other sign, whatever devices are like. A bet of `stake * tanh(scale * difference)`
on one sign is then fair, so a mixture of bets is a test martingale (Ville 1939; for tests of symmetry Ramdas et al.
2020) and reaches 2/alpha for one side with probability alpha/2 at most.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# How large a difference must be to count in full: shares and relative latencies differ by a hundredth to a half.
SCALES: Final = (3.0, 10.0, 30.0, 100.0)
STAKES: Final = (0.4, 0.95)
_MAX_LOG = 300.0
_STEPS = 60


@dataclass(frozen=True)
class Finding:
    """What pairs say so far. Differences are positive where b is better."""

    winner: str  # "a", "b", or "" while neither is shown to be better
    for_a: float  # evidence, `needed` decides
    for_b: float
    needed: float
    pairs: int
    mean: float | None  # of the differences, without pairs in which a version could not run
    low: float | None  # interval for one constant difference; None: not bounded yet
    high: float | None


def judge(differences: Sequence[float], alpha: float) -> Finding:
    """Evidence for each side from the pairs that are complete, in any order; infinite where one could not run it."""
    x = np.array(differences, dtype=np.float64)
    needed = 2 / alpha
    for_a, for_b = _after_all(-x), _after_all(x)
    winner = "b" if for_b >= needed else "a" if for_a >= needed else ""
    finite = x[np.isfinite(x)]
    mean = float(finite.mean()) if len(finite) else None
    return Finding(winner, for_a, for_b, needed, len(x), mean, _lowest(x, needed), _highest(x, needed))


def capital(differences: Array) -> Array:
    """What a gambler has after each pair (last axis) who began with 1 and bet on positive signs."""
    squashed = np.tanh(np.multiply.outer(np.array(SCALES), differences))
    logs = np.log1p(np.multiply.outer(np.array(STAKES), squashed)).cumsum(axis=-1)
    made: Array = np.exp(np.minimum(logs, _MAX_LOG)).mean(axis=(0, 1))
    return made


def _after_all(differences: Array) -> float:
    return float(capital(differences)[-1]) if len(differences) else 1.0


def least_pairs(alpha: float) -> int:
    """How many pairs decide when the same version is clearly better in every one."""
    n = 1
    while _after_all(np.full(n, np.inf)) < 2 / alpha:
        n += 1
    return n


def _lowest(x: Array, needed: float) -> float | None:
    """The largest constant difference that is shown to be too small."""
    finite = x[np.isfinite(x)]
    if not len(finite):
        return None
    low, high = float(finite.min()) - 1, float(finite.max())
    if _after_all(x - low) < needed:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _after_all(x - middle) >= needed else (low, middle)
        if math.isclose(low, high, abs_tol=1e-6):
            break
    return low


def _highest(x: Array, needed: float) -> float | None:
    found = _lowest(-x, needed)
    return None if found is None else -found
