"""Halves are fair, and a winner is named as seldom as promised where there is none."""

import math
import random
from collections import Counter

import numpy as np

from fleet.rollouts import halves, versus
from tests.fleet.rollouts.test_error_rates import at_most


def test_pairs_are_alike_and_the_coin_is_fair() -> None:
    """Within target and site first, then within the target; only the odd one of a target is alone."""
    fleet = [
        halves.Subject(f"{target}-{site}-{n}", target, site)
        for target, sizes in {"esp32": (5, 4), "pi": (3, 3), "rp2040": (1, 0)}.items()
        for site, size in zip("xy", sizes, strict=True)
        for n in range(size)
    ]
    sides: Counter[bool] = Counter()
    for seed in range(200):
        pairs = halves.divide(fleet, random.Random(seed))
        named = [name for pair in pairs for name in (pair.a, pair.b) if name]
        assert sorted(named) == sorted(subject.device for subject in fleet)
        full = [(p.a.split("-"), p.b.split("-")) for p in pairs if p.a and p.b]
        assert all(a[0] == b[0] for a, b in full)
        assert sum(a[1] != b[1] for a, b in full) == 1, "only the two that were left over, of pi"
        assert len(pairs) - len(full) == 2
        sides["esp32-x-0" in {pair.a for pair in pairs}] += 1
    assert 70 < sides[True] < 130


def test_without_a_difference_a_winner_is_rarely_named_however_often_it_looks() -> None:
    """Devices that differ wildly from each other: only the toss is assumed."""
    chance = np.random.default_rng(3)
    size = chance.standard_t(1.2, (10_000, 100)) * 0.1
    tossed = size * chance.choice([-1, 1], size.shape)
    named = (versus.capital(tossed).max(axis=1) >= 40) | (versus.capital(-tossed).max(axis=1) >= 40)
    assert at_most(int(named.sum()), len(named), 0.05)
    first = tossed[int(named.argmax())]
    assert any(versus.judge(first[:n], 0.05).winner for n in range(1, 101)), "as judged, look by look"


def test_a_clear_difference_is_found_soon_and_a_small_one_with_time() -> None:
    """Seven pairs suffice; five points among ten points of noise are found in 60 pairs."""
    assert versus.least_pairs(0.05) == 7
    assert versus.judge([0.3] * 8, 0.05).winner == "b"
    assert versus.judge([-math.inf] * 7, 0.05).winner == "a", "versions that could not be kept count in full"
    chance = np.random.default_rng(4)
    found = [versus.judge(chance.normal(0.05, 0.1, 60), 0.05) for _ in range(60)]
    assert sum(each.winner == "b" for each in found) > 45
    assert not any(each.winner == "a" for each in found)


def test_the_interval_holds_the_true_difference() -> None:
    """At 95 %, and around the mean; nothing is bounded by too few pairs."""
    chance = np.random.default_rng(5)
    few = versus.judge([0.1] * 4, 0.05)
    assert (few.low, few.high) == (None, None)
    missed = 0
    for _ in range(100):
        found = versus.judge(chance.normal(0.05, 0.1, 80), 0.05)
        assert found.low is not None
        assert found.high is not None
        assert found.mean is not None
        assert found.low < found.mean < found.high
        missed += not found.low < 0.05 < found.high
    assert missed <= 12
