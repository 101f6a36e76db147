"""Devices held back: a season is not held against a version, a worse version is, and chance rarely stops a good one."""

from collections.abc import Sequence

import numpy as np

from fleet.rollouts import betting, signals
from fleet.rollouts.gates import Evidence, Limits, Verdict, evaluate
from fleet.rollouts.processes import Outcome
from fleet.rollouts.signals import Measure
from fleet.rollouts.strategy import Strategy
from tests.fleet.rollouts.test_error_rates import at_most


def verdict(ours: Sequence[float], held: Sequence[float]) -> Verdict:
    """What the gate says of latencies that changed so on devices with the version, and on those held back."""
    rules = Strategy.model_validate({"who": {"hold_back": "10%"} if len(held) else {}})
    paired = signals.against_hold_back(list(ours), list(held))
    outcomes = [
        Outcome(
            f"d{n}",
            "pi",
            "kept",
            1,
            {"latency": Measure(change)}
            | ({signals.held_back_name("latency"): Measure(paired[n])} if n < len(paired) else {}),
        )
        for n, change in enumerate(ours)
    ]
    return evaluate(Evidence(outcomes, 1, True, 100, True, ["pi"]), Limits.of(rules))


def test_what_became_slower_everywhere_asks_a_person_and_stops_nothing() -> None:
    """Without devices held back the same numbers stop the rollout."""
    chance = np.random.default_rng(1)
    ours, held = chance.normal(0.5, 0.1, 120), chance.normal(0.5, 0.1, 40)
    asked = verdict(ours, held)
    assert asked.decision == "hold"
    assert "inferences take longer" in asked.sentence
    assert verdict(ours, ()).decision == "roll_back"


def test_what_became_slower_only_with_the_version_stops_it() -> None:
    """Half as fast again, and those held back are as they were."""
    chance = np.random.default_rng(2)
    found = verdict(chance.normal(0.6, 0.1, 120), chance.normal(0.0, 0.1, 60))
    assert found.decision == "roll_back"
    assert "more than on devices held back" in found.sentence


def test_a_version_that_changes_nothing_is_rarely_stopped_in_any_season() -> None:
    """Every look, 10,000 rollouts: a drift common to all, and each device's own noise."""
    chance = np.random.default_rng(3)
    stopped = 0
    for _ in range(10):
        drift = chance.normal(0, 0.3, (1000, 1))
        ours, held = (np.clip(drift + chance.normal(0, 0.2, (1000, n)), -1, 1) for n in (100, 25))
        # Four new devices for each that is held back, as `against_hold_back` cuts them.
        paired = (ours.reshape(1000, 25, 4).mean(axis=2) - held) / 2
        assert np.allclose(paired[0], signals.against_hold_back(list(ours[0]), list(held[0])))
        capital = [betting.mean_above(row, 0.01, np.full(25, -1.0)).max() for row in paired]
        stopped += sum(np.array(capital) >= 20)
    assert at_most(int(stopped), 10_000, 0.05)
