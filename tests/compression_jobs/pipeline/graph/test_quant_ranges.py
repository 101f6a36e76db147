"""Ranges of activations: what each method does with outliers, skew and constants."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression_jobs.pipeline.graph.quant_ranges import Histogram, affine, collect, find_range


def histogram_of(values: np.ndarray) -> Histogram:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        for part in np.array_split(values.astype(np.float32), 4):
            yield {"t": part}

    return collect(batches)["t"]


def squared_error(values: np.ndarray, found: tuple[float, float]) -> float:
    scale, zero_point = affine(found)
    stored = np.clip(np.rint(values / scale) + zero_point, -128, 127)
    return float(((stored - zero_point) * scale - values).__pow__(2).mean())


@pytest.fixture(scope="module")
def with_outlier() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=50_000)
    values[7] = 60.0
    return values


def test_minmax_covers_everything_and_always_zero() -> None:
    assert find_range(histogram_of(np.array([1.0, 2, 3, 5])), "minmax") == (0.0, 5.0)
    assert find_range(histogram_of(np.array([-4.0, -2, -3, -2])), "minmax") == (-4.0, 0.0)


def test_percentile_leaves_out_the_outlier(with_outlier: np.ndarray) -> None:
    low, high = find_range(histogram_of(with_outlier), "percentile", 99.9)
    assert -5 < low < -2
    assert 2 < high < 5


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_every_other_method_gives_one_wild_value_up_for_the_rest(
    with_outlier: np.ndarray, method: str
) -> None:
    histogram = histogram_of(with_outlier)
    low, high = find_range(histogram, method)
    assert high < 45
    assert -5 < low < -2
    typical = np.delete(with_outlier, 7)
    assert squared_error(typical, (low, high)) < 0.6 * squared_error(typical, (histogram.low, 60.0))


def test_mse_finds_a_range_no_worse_than_any_share_of_the_full_one() -> None:
    values = np.random.default_rng(1).laplace(size=20_000)
    histogram = histogram_of(values)
    best = squared_error(values, find_range(histogram, "mse"))
    full = find_range(histogram, "minmax")
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        assert best <= 1.02 * squared_error(values, (full[0] * share, full[1] * share))


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("constant", [0.0, 3.5, -2.0, 1e-12, 1e9])
def test_a_constant_tensor_keeps_its_value(method: str, constant: float) -> None:
    scale, zero_point = affine(find_range(histogram_of(np.full(64, constant)), method))
    stored = np.clip(np.rint(constant / scale) + zero_point, -128, 127)
    assert (stored - zero_point) * scale == pytest.approx(constant, rel=0.02, abs=1e-6)


@given(st.floats(-1e5, 1e5), st.floats(0, 1e5))
def test_affine_stores_zero_exactly_and_the_ends_within_a_step(low: float, width: float) -> None:
    scale, zero_point = affine((low, low + width))
    assert -128 <= zero_point <= 127
    assert float(np.float32(scale)) == scale
    for end in (min(low, 0.0), max(low + width, 0.0)):
        stored = np.clip(np.rint(end / scale) + zero_point, -128, 127)
        assert abs((stored - zero_point) * scale - end) <= scale
