"""Ranges of activations from calibration rows: minmax, percentile, entropy and mean squared error.

Two passes over the rows keep memory bounded: extremes first, then one histogram a tensor between them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Calibration = Literal["minmax", "percentile", "entropy", "mse"]
FloatArray = npt.NDArray[np.float64]
Batches = Callable[[], Iterator[dict[str, npt.NDArray[np.float32]]]]

Range = tuple[float, float]

BINS = 2048
# Fewer make a distribution of its gaps, and entropy would clip for the sake of chance.
VALUES_A_BIN = 16
LEVELS = 256
# Shares of each end of the full range that entropy and MSE try.
SHARES = np.geomspace(1.0, 0.01, 64)
ROUNDS = 2


@dataclass
class Histogram:
    """Counts of one tensor's values in equal bins from `low` to `high`."""

    low: float
    high: float
    counts: FloatArray

    @property
    def edges(self) -> FloatArray:
        """The borders of the bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> FloatArray:
        """The middle of each bin."""
        edges = self.edges
        return (edges[:-1] + edges[1:]) / 2

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count `values`; those outside the range count in the end bins."""
        bins = len(self.counts)
        places = (values.ravel() - np.float32(self.low)) * np.float32(bins / (self.high - self.low))
        self.counts += np.bincount(np.clip(places, 0, bins - 1).astype(np.int64), minlength=bins)

    def without_zeros(self) -> "Histogram":
        """Without the bin of zero, which int8 stores exactly: after a relu it would drown all others."""
        counts = self.counts.copy()
        counts[min(int(-self.low / (self.high - self.low) * len(counts)), len(counts) - 1)] = 0
        # A tensor of zeros alone keeps them.
        return Histogram(self.low, self.high, counts if counts.any() else self.counts)

    def coarser(self, values_a_bin: float) -> "Histogram":
        """Neighbours joined until bins hold that many values on average, but no fewer bins than levels."""
        counts = self.counts
        while len(counts) > LEVELS and counts.sum() < values_a_bin * len(counts):
            counts = counts[0::2] + counts[1::2]
        return Histogram(self.low, self.high, counts)


def extremes(batches: Batches) -> dict[str, Range]:
    """The least and the largest value of each tensor that `batches()` yields, zero included."""
    found: dict[str, Range] = {}
    for batch in batches():
        for name, values in batch.items():
            # These pass NaN on, which the built-in ones lose.
            low, high = found.get(name, (0.0, 0.0))
            found[name] = (float(np.minimum(values.min(), low)), float(np.maximum(values.max(), high)))
    return found


def collect(batches: Batches) -> dict[str, Histogram]:
    """One histogram for each tensor that `batches()` yields; it is called twice and must repeat itself."""
    histograms = {name: _empty(*found) for name, found in extremes(batches).items()}
    for batch in batches():
        for name, values in batch.items():
            histograms[name].add(values)
    return histograms


def _empty(low: float, high: float) -> Histogram:
    # A constant tensor still needs bins of some width.
    return Histogram(low, max(high, low + 1e-6), np.zeros(BINS))


def find_range(histogram: Histogram, method: Calibration, percentile: float = 99.99) -> Range:
    """The real interval that int8 should cover, by `method`."""
    if method == "minmax":
        return histogram.low, histogram.high
    if method == "percentile":
        return _percentile_range(histogram, percentile)
    if method == "entropy":
        return _cheapest(histogram.without_zeros().coarser(VALUES_A_BIN), _entropy_cost)
    return _cheapest(histogram, _squared_error)


def affine(found: Range) -> tuple[float, int]:
    """Scale (an exact float32) and zero point of an affine int8 tensor that covers `found` and zero.

    Zero must be stored exactly, because padding is zero (Jacob et al. 2018, section 2.1).
    """
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = float(np.float32(max(high - low, 1e-7) / (LEVELS - 1)))
    zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
    return scale, zero_point


def _percentile_range(histogram: Histogram, percentile: float) -> Range:
    """The interval that leaves out the given tail on either side."""
    total = histogram.counts.sum()
    cumulative = np.cumsum(histogram.counts) / total
    tail = 1 - percentile / 100
    edges = histogram.edges
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, 1 - tail, side="left"))
    return float(edges[min(first, len(edges) - 2)]), float(edges[min(last + 1, len(edges) - 1)])


def _cheapest(histogram: Histogram, cost: Callable[[Histogram, Range], float]) -> Range:
    """The range with the lowest cost, one end after the other: an outlier must not shrink the other side.

    Ties go to the wider range.
    """
    low, high = histogram.low, histogram.high
    for _ in range(ROUNDS):
        highs = [(low, float(histogram.high * share)) for share in SHARES]
        high = highs[int(np.argmin([cost(histogram, each) for each in highs]))][1]
        lows = [(float(histogram.low * share), high) for share in SHARES]
        low = lows[int(np.argmin([cost(histogram, each) for each in lows]))][0]
    return low, high


def _squared_error(histogram: Histogram, candidate: Range) -> float:
    """Mean squared distance between values and their stored form."""
    scale, zero_point = affine(candidate)
    centres = histogram.centres
    stored = np.clip(np.rint(centres / scale) + zero_point, -128, 127)
    return float(histogram.counts @ (centres - (stored - zero_point) * scale) ** 2)


def _entropy_cost(histogram: Histogram, candidate: Range) -> float:
    """Kullback-Leibler divergence of the stored distribution from the real one (Migacz, GTC 2017).

    Clipped values are counted at the ends of the reference and not of the approximation, so that
    clipping costs; each level spreads its count evenly over the bins that it stands for.
    """
    scale, zero_point = affine(candidate)
    stored = np.clip(np.rint(histogram.centres / scale) + zero_point, -128, 127).astype(np.int64) + 128
    low, high = min(candidate[0], 0.0), max(candidate[1], 0.0)
    inside = (histogram.centres >= low) & (histogram.centres <= high)
    reference = _clipped_counts(histogram, inside)
    used = inside & (histogram.counts > 0)
    mass = np.bincount(stored[inside], weights=histogram.counts[inside], minlength=LEVELS)
    bins_used = np.bincount(stored[used], minlength=LEVELS)
    spread = np.where(used, mass[stored] / np.maximum(bins_used[stored], 1), 0.0)
    return _divergence(reference, spread)


def _clipped_counts(histogram: Histogram, inside: npt.NDArray[np.bool_]) -> FloatArray:
    counts = np.where(inside, histogram.counts, 0.0)
    positions = np.flatnonzero(inside)
    if positions.size:
        counts[positions[0]] += histogram.counts[: positions[0]].sum()
        counts[positions[-1]] += histogram.counts[positions[-1] + 1 :].sum()
    return counts


def _divergence(p: FloatArray, q: FloatArray) -> float:
    # Smoothing keeps bins that only one of them fills from being infinitely bad.
    floor = 1e-4
    p, q = p / max(p.sum(), floor), q / max(q.sum(), floor)
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], floor * 1e-4))))
