"""How often gates err: properties of the bets, and simulated rollouts with late reports, dependent gates, odd waves."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollouts import betting, processes, replay, signals
from fleet.rollouts.gates import Evidence, Limits, evaluate
from fleet.rollouts.processes import Outcome
from fleet.rollouts.signals import Measure

LIMITS = Limits()
rates = st.floats(0.01, 0.4)


def ends(devices: int, *shares: float) -> list[int]:
    """Cumulative wave sizes."""
    return sorted({max(1, math.ceil(devices * share)) for share in shares or (0.01, 0.05, 0.2, 0.5, 1)})


def course(devices: int, targets: int = 1, *shares: float) -> replay.Course:
    """A rollout to devices whose targets take turns."""
    return replay.Course(ends(devices, *shares), np.arange(devices) % targets, LIMITS, devices < 40)


def at_most(stopped: int, n: int, rate: float) -> bool:
    """Whether a share is no larger than a rate, with four standard errors of room; the interval is printed."""
    room = 4 * math.sqrt(rate * (1 - rate) / n)
    print(f"{stopped} of {n} stopped: {stopped / n:.4f} +- {1.96 * math.sqrt(stopped + 1) / n:.4f}")
    return stopped / n <= rate + room


@given(st.lists(st.floats(0, 1), max_size=50), rates)
def test_capital_is_never_negative(xs: list[float], rate: float) -> None:
    """A bet that could ruin would make the running product meaningless."""
    x = np.array(xs)
    for capital in (betting.rate_above(x, rate, 0.5), betting.rate_below(x, rate)):
        assert (capital > 0).all()
        assert np.isfinite(capital).all()


@given(rates)
def test_bets_on_rates_are_fair_where_the_claim_just_holds(rate: float) -> None:
    """The mean gain is zero where the truth is exactly the rate, so Ville's inequality holds."""
    for capital in (lambda x: betting.rate_above(x, rate, 0.5), lambda x: betting.rate_below(x, rate)):
        lost, won = capital(np.array([0.0]))[0], capital(np.array([1.0]))[0]
        assert (1 - rate) * lost + rate * won == pytest.approx(1.0)


@given(st.floats(0, 0.5), st.floats(-1, -0.05), st.floats(0.05, 1))
def test_bets_on_differences_are_fair(tolerated: float, low: float, high: float) -> None:
    """For two outcomes whose mean is exactly what is tolerated."""
    high = max(high, tolerated + 0.01)
    chance = (tolerated - low) / (high - low)
    after = [
        betting.mean_above(np.array([d]), tolerated, np.array([min(low, -0.05)]))[0] for d in (low, high)
    ]
    assert (1 - chance) * after[0] + chance * after[1] == pytest.approx(1.0)


def through_the_gate(outcomes: list[Outcome], played: replay.Course) -> tuple[bool, int, bool]:
    """Whether the gate that the engine asks stops one rollout, after how many devices, and whether it asked a person.

    A person says "go on", and is not asked the same again.
    """
    asked, goal, proven, held, devices = 0, played.ends[0], False, False, len(outcomes)
    waves: list[int] = []
    accepted: list[tuple[str, str]] = []
    wave = 1
    while True:
        part = replay.pace.parts(np.array([asked]), np.array([goal]), np.array([proven]))
        asked = int(part[0]) if played.paced else goal
        waves += [wave] * (asked - len(waves))
        over, going_on = asked >= goal, played.proceeds_without_evidence
        # What devices measure is known when their wave has soaked.
        seen = [replace(o, wave=n, measured=over or n < wave) for o, n in zip(outcomes, waves, strict=False)]
        evidence = Evidence(seen, wave, over, devices - asked, going_on, ["a", "b"], accepted)
        verdict = evaluate(evidence, played.limits)
        question = verdict.figures.get("question")
        kept = any(o.result == "kept" for o in seen if o.wave == wave)
        held |= verdict.decision == "hold" and (asked < devices or bool(question) or not kept)
        if verdict.decision == "roll_back" or asked == devices:
            return verdict.decision == "roll_back", asked, held
        accepted += [(question[0], question[1])] if question else []
        proven = verdict.figures["e_ok"] >= verdict.figures["e_ok_needed"]
        if verdict.extend_by:
            goal = asked + verdict.extend_by
        elif over:
            goal, wave = next(end for end in played.ends if end > asked), wave + 1


def through_the_replay(played: replay.Played) -> tuple[bool, int, bool]:
    """The same of the first rollout that was played in arrays."""
    return bool(played.stopped[0]), int(played.exposed[0]), bool(played.held[0])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.1, 0.3]), st.sampled_from([7, 45, 130]))
def test_the_replay_decides_as_the_gate_does(seed: int, rate: float, devices: int) -> None:
    """One imagined rollout through the arrays and through the gate that the engine asks."""
    failed = np.random.default_rng(seed).random(devices) < rate
    outline = course(devices, 2)
    played = replay.play(failed[None, :], outline)
    outcomes = [Outcome(f"d{n}", "ab"[n % 2], "broken" if failed[n] else "kept", 1) for n in range(devices)]
    assert through_the_gate(outcomes, outline) == through_the_replay(played)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5, 0.9]), st.sampled_from([3, 12, 60]))
def test_the_replay_tells_own_verdicts_from_what_could_not_be_installed(
    seed: int, rate: float, devices: int
) -> None:
    """Small waves in which nobody keeps it: some went back by themselves, the others could not install it."""
    random = np.random.default_rng(seed)
    failed = random.random(devices) < rate
    broken = failed & (random.random(devices) < 0.5)
    limits = Limits(safety_limit=1.0)
    outline = replay.Course(
        ends(devices, 0.1, 0.2, 0.5, 1), np.arange(devices) % 2, limits, devices < 40, own_verdict=True
    )
    played = replay.play(failed[None, :], outline, broken=broken[None, :])
    results = np.where(broken, "broken", np.where(failed, "worse", "kept"))
    outcomes = [Outcome(f"d{n}", "ab"[n % 2], str(results[n]), 1) for n in range(devices)]
    assert through_the_gate(outcomes, outline) == through_the_replay(played)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.6]), st.sampled_from([0.02, 0.2]))
def test_the_replay_weighs_measured_differences_as_the_gate_does(
    seed: int, slower: float, rate: float
) -> None:
    """Failures, latency beside devices held back, and confidence, which asks; looked at when each wave has soaked."""
    random, devices = np.random.default_rng(seed), 90
    limits = Limits(
        tolerated={"latency": 0.25, "errors": 0.02, "confidence": 0.15, "latency_held_back": 0.125}
    )
    outline = replay.Course(ends(devices, 0.3, 0.7, 1), np.arange(devices) % 2, limits, paced=False)
    failed = random.random(devices) < rate
    drawn = {
        name: np.clip(mean + random.normal(0, 0.1, devices), -1, 1).astype(np.float32)
        for name, mean in (("latency", slower), ("confidence", slower / 2), ("latency_held_back", slower / 2))
    }
    drawn["latency_held_back"][np.arange(devices) % 5 != 0] = np.nan
    for values in drawn.values():
        values[failed] = np.nan
    played = replay.play(
        failed[None, :], outline, differences={name: values[None, :] for name, values in drawn.items()}
    )
    outcomes = [
        Outcome(
            f"d{n}",
            "ab"[n % 2],
            "broken" if failed[n] else "kept",
            1,
            {name: Measure(float(values[n])) for name, values in drawn.items() if not np.isnan(values[n])},
        )
        for n in range(devices)
    ]
    assert through_the_gate(outcomes, outline) == through_the_replay(played)


@pytest.mark.parametrize("shares", [(), (0.03, 0.9, 1), (1,)])
@pytest.mark.parametrize("targets", [1, 3])
def test_good_rollouts_are_rarely_stopped(shares: tuple[float, ...], targets: int) -> None:
    """Whatever the waves, and with a gate of its own for each target."""
    failed = np.random.default_rng(5).random((600, 150)) < LIMITS.p0
    stopped = replay.play(failed, course(150, targets, *shares)).stopped
    assert at_most(int(stopped.sum()), 600, LIMITS.alpha)


@pytest.mark.parametrize("devices", [20, 50])
def test_good_rollouts_in_waves_of_one_device_are_rarely_stopped(devices: int) -> None:
    """One of so many devices goes back by bad luck, and then its wave has nobody who kept it."""
    failed = np.random.default_rng(5).random((2000, devices)) < LIMITS.p0
    kinds = np.zeros(devices, dtype=np.int64)
    one_by_one = replay.Course(range(1, devices + 1), kinds, LIMITS, devices < 40, own_verdict=True)
    assert at_most(int(replay.play(failed, one_by_one).stopped.sum()), 2000, LIMITS.alpha)


def test_a_bad_version_is_stopped_early() -> None:
    """One device in five fails: nearly always stopped, most of the fleet never asked."""
    played = replay.play(np.random.default_rng(6).random((500, 200)) < 0.2, course(200))
    assert played.stopped.mean() > 0.98
    assert played.exposed.mean() < 20


def late(random: np.random.Generator, fleet: int, looks: int) -> bool:
    """A good rollout in one wave where failures answer at once and successes late; whether any look stops it.

    Each device also has numbers that hang together with whether it fails: gates depend on one another.
    """
    failed = random.random(fleet) < LIMITS.p0
    numbers = np.clip(random.normal(0.0, 0.3, fleet) + 0.5 * (failed - LIMITS.p0), -1, 1)
    answers_at = np.where(failed, 0.0, random.random(fleet))
    limits = Limits(tolerated={"latency": 0.0, "errors": 0.0})
    for time in np.linspace(0, 1, looks):
        outcomes = [
            Outcome(
                f"d{n}",
                "a",
                "open" if answers_at[n] > time else "broken" if failed[n] else "kept",
                1,
                {} if answers_at[n] > time else {name: Measure(numbers[n]) for name in limits.tolerated},
            )
            for n in range(fleet)
        ]
        verdict = evaluate(Evidence(outcomes, 1, False, 0, True, ["a"]), limits)
        if verdict.decision == "roll_back":
            return True
    return False


def test_late_reports_and_dependent_gates_stop_no_good_rollout() -> None:
    """Counting in the order of answers would stop most of these at the first look."""
    random = np.random.default_rng(7)
    assert at_most(sum(late(random, 100, 4) for _ in range(100)), 100, LIMITS.alpha)


def test_the_season_that_slows_everybody_is_not_held_against_the_version() -> None:
    """All devices became slower, those held back as well; only the version's own part counts."""
    random = np.random.default_rng(8)
    season = 0.6
    new, held = (list(season + random.normal(0, 0.05, n)) for n in (30, 6))
    paired = signals.against_hold_back(new, held)
    assert len(paired) == 6
    assert abs(float(np.mean(paired))) < 0.1
    alone = betting.mean_above(np.array(new), 0.25, np.full(30, -1.0))
    beside = betting.mean_above(np.array(paired), 0.125, np.full(6, -1.0))
    assert alone.max() > 20 > beside.max()


@pytest.mark.full
@pytest.mark.parametrize("shares", [(), (0.03, 0.9, 1)])
@pytest.mark.parametrize(("devices", "targets"), [(6, 1), (50, 1), (200, 3), (1000, 2)])
def test_false_stops_in_ten_thousand_rollouts(devices: int, targets: int, shares: tuple[float, ...]) -> None:
    """Nothing is wrong, whatever the waves: alpha at most, with the interval printed."""
    failed = np.random.default_rng(9).random((10_000, devices), dtype=np.float32) < LIMITS.p0
    stopped = replay.play(failed, course(devices, targets, *shares)).stopped
    assert at_most(int(stopped.sum()), 10_000, LIMITS.alpha)


@pytest.mark.full
def test_late_reports_in_ten_thousand_rollouts() -> None:
    """The same with gates that depend on one another, and failures that answer first."""
    random = np.random.default_rng(10)
    assert at_most(sum(late(random, 60, 4) for _ in range(10_000)), 10_000, LIMITS.alpha)


@pytest.mark.full
@pytest.mark.parametrize(
    ("devices", "rate", "least"), [(50, 0.2, 0.97), (200, 0.1, 0.98), (5000, 0.05, 0.99)]
)
def test_power_in_ten_thousand_rollouts(devices: int, rate: float, least: float) -> None:
    """A regression of the declared size is caught."""
    failed = np.random.default_rng(11).random((10_000 if devices < 5000 else 2000, devices), dtype=np.float32)
    assert replay.play(failed < rate, course(devices)).stopped.mean() > least


def test_processes_of_nothing_are_one() -> None:
    """Before anybody answered there is no evidence."""
    found = processes.judge([], processes.Claims(0.05, 0.02, 0.1, {"latency": 0.1}, ["a"]))
    assert (found.stop, found.hold) == (1.0, 1.0)
