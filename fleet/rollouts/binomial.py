"""The exact upper bound of a rate that is shown beside a verdict."""

import math


def upper_bound(failed: int, n: int, confidence: float = 0.95) -> float:
    """Clopper-Pearson upper bound of a rate, by bisection; 1 when nothing was seen."""
    if failed >= n:
        return 1.0
    low, high = failed / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _cdf(failed, n, middle) > 1 - confidence else (low, middle)
    return high


def _cdf(k: int, n: int, p: float) -> float:
    term = n * math.log1p(-p)
    total = math.exp(term)
    for i in range(k):
        term += math.log(n - i) - math.log(i + 1) + math.log(p) - math.log1p(-p)
        total += math.exp(term)
    return total
