"""Test martingales: the capital of a gambler who bets against a claim, after each observation.

If the claim holds, capital reaches 1/alpha with probability alpha at most, however often somebody looks (Ville 1939;
Waudby-Smith & Ramdas 2023). Stakes are mixed, so that no alternative has to be named beforehand. Every function returns
one value an observation; an observation that does not count leaves the capital as it was.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Against "the rate is p0 at most": bets that are best at p0 + m (p1 - p0) for these m, most on p1 itself and just above.
# Tuned by simulation at p0 = 2 %, p1 = 10 %; `python -m tests.benchmarks gates` shows what it gives.
ABOVE_MULTIPLES = (0.375, 1.0, 2.25, 5.6)
ABOVE_WEIGHTS = (0.15, 0.35, 0.3, 0.2)
# Against "the rate is p1 at least": shares of the largest stake; the best one is 1 - p0/p1, 0.8 by default.
BELOW_FRACTIONS = (0.5, 0.8, 0.95)
# Against "the mean difference is the tolerated one at most": shares of the largest stake.
MEAN_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)

# A stake of everything could ruin the gambler, who then could not come back.
MOST = 0.9
_MAX_LOG = 300.0
# No stake loses more than this share at once; it only guards against rounding.
_MOST_LOSS = -0.999999


def stakes_above(p0: float, p1: float) -> Array:
    """Stakes against "the rate is p0 at most"."""
    return np.array([min(MOST, m * (p1 - p0) / (1 - p0)) / p0 for m in ABOVE_MULTIPLES])


def stakes_below(p1: float) -> Array:
    """Stakes against "the rate is p1 at least"."""
    return np.array(BELOW_FRACTIONS) / (1 - p1)


def rate_above(x: Array, p0: float, p1: float, counts: Mask | None = None) -> Array:
    """Capital against "at most p0 of these fail"; x is 0 or 1, or any number between."""
    return _capital(np.outer(x - p0, stakes_above(p0, p1)), counts, ABOVE_WEIGHTS)


def rate_below(x: Array, p1: float, counts: Mask | None = None) -> Array:
    """Capital against "at least p1 of these fail"."""
    return _capital(np.outer(p1 - x, stakes_below(p1)), counts)


def mean_above(differences: Array, tolerated: float, lowest: Array, counts: Mask | None = None) -> Array:
    """Capital against "the mean difference is `tolerated` at most"; each difference is known to be `lowest` at least.

    Differences may be dependent and drawn from different distributions; what the claim bounds is the mean of each
    given all before it.
    """
    room = np.maximum(tolerated - lowest, 1e-6)
    return _capital(np.outer((differences - tolerated) / room, MEAN_FRACTIONS), counts)


def clean_needed(p1: float, beta: float, capital_logs: Array | None = None, most: int = 100_000) -> int:
    """How many more observations of 0 take the capital against "at least p1" to 1/beta; `most` if that many do not."""
    step = np.log1p(p1 * stakes_below(p1))
    logs = np.zeros(len(step)) if capital_logs is None else capital_logs
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        reached = float(_mix((logs + middle * step)[None, :], None)[0]) >= 1 / beta
        low, high = (low, middle) if reached else (middle + 1, high)
    return low


def logs_below(failed: int, n: int, p1: float) -> Array:
    """Logarithm of each bet's capital against "at least p1" after `failed` of `n`, in any order."""
    stakes = stakes_below(p1)
    lost: Array = np.log1p((p1 - 1) * stakes)
    won: Array = np.log1p(p1 * stakes)
    return failed * lost + (n - failed) * won


def _capital(gains: Array, counts: Mask | None, weights: Sequence[float] | None = None) -> Array:
    logs = np.log1p(np.maximum(gains, _MOST_LOSS))
    if counts is not None:
        logs[~counts] = 0.0
    return _mix(np.cumsum(logs, axis=0), weights)


def _mix(logs: Array, weights: Sequence[float] | None) -> Array:
    capital = np.exp(np.minimum(logs, _MAX_LOG))
    shares = np.full(logs.shape[1], 1 / logs.shape[1]) if weights is None else np.array(weights)
    mixed: Array = capital @ shares
    return mixed
