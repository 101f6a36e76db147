"""Intervals against published figures and against simulation."""

import numpy as np
import pytest

from compression_jobs.pipeline.intervals import paired_drop, round_rows, rows_to_show, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_figures_of_newcombe_1998(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def pairs(both: int, only_before: int, only_after: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_before, only_after, neither]
    before = np.repeat([True, True, False, False], counts)
    after = np.repeat([True, False, True, False], counts)
    return before, after


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3292), ((0, 30, 0, 0), 0.8395, 1.0)],
)
def test_paired_drop_gives_the_figures_of_newcombe_1998(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert paired_drop(*pairs(*counts)) == pytest.approx((low, high), abs=5e-5)


def test_paired_drop_covers_the_truth_about_19_times_in_20() -> None:
    chance = np.random.default_rng(3)
    truth, covered = 0.03, 0
    for _ in range(400):
        kind = chance.choice(4, 250, p=[0.9, 0.05, 0.02, 0.03])
        low, high = paired_drop(kind <= 1, (kind == 0) | (kind == 2))
        covered += low <= truth <= high
    assert covered / 400 > 0.92


def test_the_rows_needed_grow_with_the_square_of_the_precision() -> None:
    assert rows_to_show(0.05, 0.0, 0.02, 300) is None
    assert rows_to_show(0.01, 0.0, 0.02, 300) == 1200
    assert round_rows(1234) == 1300
