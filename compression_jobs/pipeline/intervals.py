"""95 % intervals for shares, paired differences and resampled scores, and how many rows would show a difference."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054
RESAMPLES = 1000

Interval = tuple[float, float]
Flags = npt.NDArray[np.bool_]


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); n = 0 gives (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding must not push the ends 0 and 1 inwards.
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == n else min(centre + half, 1.0)
    return low, high


def paired_drop(before: Flags, after: Flags) -> Interval:
    """Interval of mean(before) - mean(after) on the same rows.

    Method 10 of Newcombe (Statistics in Medicine 17, 1998, 2635-2650): Wilson intervals of both shares,
    joined through the correlation of the pairs. It keeps a width when no row differs.
    """
    n = len(before)
    first, second = int(before.sum()), int(after.sum())
    p1, p2 = first / n, second / n
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    phi = _pair_correlation(before, after)
    down = _joined(p1 - low1, high2 - p2, phi)
    up = _joined(high1 - p1, p2 - low2, phi)
    return max(p1 - p2 - down, -1.0), min(p1 - p2 + up, 1.0)


def _pair_correlation(before: Flags, after: Flags) -> float:
    n = len(before)
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    only_before, only_after = int((before & ~after).sum()), int((~before & after).sum())
    margins = (both + only_before) * (only_after + neither) * (both + only_after) * (only_before + neither)
    if margins == 0:
        return 0.0
    product = both * neither - only_before * only_after
    corrected = max(product - n / 2, 0.0) if product > 0 else product
    return corrected / math.sqrt(margins)


def _joined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def resampled(score: Callable[[npt.NDArray[np.int64]], float], n: int, seed: int = 0) -> Interval:
    """Percentile bootstrap (Efron 1979) of a score of row numbers; the same seed gives the same interval."""
    chance = np.random.default_rng(seed)
    scores = [score(chance.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def rows_to_show(max_drop: float, drop: float, high: float, n: int) -> int | None:
    """About how many rows would shrink the interval to `max_drop`; None when n rows are enough.

    Half the width falls with the square root of the number of rows.
    """
    half = high - drop
    if half <= max_drop:
        return None
    return math.ceil(n * (half / max(max_drop, 1e-3)) ** 2)


def round_rows(rows: int) -> int:
    """A row count with two digits that count, for sentences that say `about`."""
    step: Any = 10 ** max(len(str(rows)) - 2, 0)
    return int(math.ceil(rows / step) * step)
