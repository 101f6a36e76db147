"""Gates: the rule of small cases, and its error rates in simulated rollouts."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollouts.gates import Bets, Evidence, Limits, Outcome, devices_to_show, evaluate, upper_bound

LIMITS = Limits()


def seen(results: str, wave: int = 1, left: int = 0, proceeds: bool = True, over: bool = True) -> Evidence:
    """Evidence written as k(ept), w(orse), b(roken), s(ilent), u(nproven)."""
    words = {"k": "kept", "w": "worse", "b": "broken", "s": "silent", "u": "unproven"}
    outcomes = [Outcome(f"d{n}", "pi-4", words[letter], wave) for n, letter in enumerate(results)]
    return Evidence(outcomes, wave, over, left, proceeds)


@pytest.mark.parametrize(
    ("evidence", "decision"),
    [
        (seen("k", left=5), "proceed"),  # six devices can never show more
        (seen("k", left=5, proceeds=False), "hold"),
        (seen("k", left=99, proceeds=False), "wait"),
        (seen("w", left=5), "roll_back"),
        (seen("www", left=5), "roll_back"),
        (seen("b", left=5), "hold"),
        (seen("s", left=5), "hold"),
        (seen("u", left=5), "hold"),
        (seen("", left=5), "hold"),
        (seen("kw", left=4), "proceed"),
        (seen("bb", left=500), "roll_back"),
        (seen("k" * 60, left=500, proceeds=False), "proceed"),
        (seen("k" * 15 + "wwwww", left=500), "roll_back"),
        (seen("kk", left=4, over=False), "wait"),
        (seen("w", left=4, over=False), "wait"),  # others of the wave may still succeed
    ],
)
def test_decisions(evidence: Evidence, decision: str) -> None:
    """What a person would expect in small cases, each with a sentence."""
    verdict = evaluate(evidence, LIMITS)
    assert verdict.decision == decision
    assert verdict.sentence


def test_sentences_say_what_is_not_excluded() -> None:
    """The words of the design."""
    assert "0 of 6 failed; up to 39% not excluded" in evaluate(seen("k" * 6), LIMITS).sentence


def test_an_extension_is_half_of_those_asked() -> None:
    """The canary grows, not the fleet."""
    verdict = evaluate(seen("k" * 10, left=200), LIMITS)
    assert (verdict.decision, verdict.extend_by) == ("wait", 5)
    assert evaluate(seen("k", left=200), LIMITS).extend_by == 1


def test_figures_of_the_notes() -> None:
    """E_ok is 1.3 after six successes, 10 needs about 35 to 40; one failed first device stays just below 20."""
    six = evaluate(seen("k" * 6), LIMITS)
    assert six.figures["e_ok"] == pytest.approx(1.3, abs=0.1)
    assert 33 <= devices_to_show(LIMITS) <= 40
    bets = Bets(0.02, above=True)
    bets.observe(1.0)
    assert 15 < bets.value() < 20
    assert upper_bound(0, 22) < 0.13


def test_low_accuracy_on_devices_that_kept_it_stops_the_rollout() -> None:
    """Installed everywhere, wrong everywhere."""
    outcomes = [Outcome(f"d{n}", "pi-4", "kept", 1, accuracy=0.3, floor=0.9) for n in range(6)]
    bad = Evidence(outcomes, 1, True, 20, True, targets=["pi-4"], judges_accuracy=True)
    assert evaluate(bad, LIMITS).decision == "roll_back"
    good = [Outcome(f"d{n}", "pi-4", "kept", 1, accuracy=0.95, floor=0.9) for n in range(6)]
    assert evaluate(Evidence(good, 1, True, 20, True, ["pi-4"], True), LIMITS).decision == "proceed"


def test_one_bad_target_is_found_among_good_ones() -> None:
    """3 of 4 of one target fail while 60 others are fine."""
    outcomes = [Outcome(f"a{n}", "pi-4", "kept", 1) for n in range(60)]
    outcomes += [Outcome(f"b{n}", "pi-5", "broken", 1) for n in range(3)]
    verdict = evaluate(Evidence(outcomes, 1, True, 50, False, ["pi-4", "pi-5"]), LIMITS)
    assert verdict.decision == "roll_back"


@given(st.lists(st.floats(0, 1), max_size=50), st.floats(0.01, 0.5), st.booleans())
def test_the_capital_is_never_negative(xs: list[float], rate: float, above: bool) -> None:
    """A bet that could ruin would make the running product meaningless."""
    bets = Bets(rate, above)
    for x in xs:
        bets.observe(x)
    assert bets.value() > 0
    assert math.isfinite(bets.value())


@given(st.floats(0.01, 0.5), st.booleans())
def test_a_bet_is_fair_at_its_rate(rate: float, above: bool) -> None:
    """The mean gain is zero where the truth is exactly the rate, so Ville's inequality holds."""
    after = []
    for x in (0.0, 1.0):
        bets = Bets(rate, above)
        bets.observe(x)
        after.append(bets.value())
    assert (1 - rate) * after[0] + rate * after[1] == pytest.approx(1.0)


def rollout(rng: random.Random, fleet: int, rate: float) -> tuple[bool, int]:
    """One simulated rollout, gate by gate: (stopped, exposed)."""
    outcomes: list[Outcome] = []
    ends = sorted({1, *(math.ceil(fleet * share) for share in (0.05, 0.2, 0.5, 1.0))})
    wave, upto = 1, 1
    while True:
        for n in range(len(outcomes), upto):
            result = "broken" if rng.random() < rate else "kept"
            outcomes.append(Outcome(f"d{n}", "pi-4", result, wave))
        left = fleet - len(outcomes)
        verdict = evaluate(Evidence(outcomes, wave, True, left, fleet < 40, ["pi-4"]), LIMITS)
        if verdict.decision == "roll_back":
            return True, len(outcomes)
        if not left:
            return False, fleet
        if verdict.decision == "wait":
            upto = len(outcomes) + verdict.extend_by
        else:
            # A held rollout goes on here, as if a person said so.
            wave, upto = wave + 1, next(end for end in ends if end > len(outcomes))


def shares(count: int, fleet: int, rate: float) -> tuple[float, float]:
    """Share of rollouts stopped, and mean exposure."""
    rng = random.Random(20261121)
    runs = [rollout(rng, fleet, rate) for _ in range(count)]
    return sum(stopped for stopped, _ in runs) / count, sum(exposed for _, exposed in runs) / count


def test_false_stops_stay_below_alpha_in_a_sample() -> None:
    """Nothing is wrong: at most 5 % stop, however often the gate looks (with three standard errors of room)."""
    stopped, _ = shares(120, 50, 0.02)
    assert stopped <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 120)


def test_a_bad_version_is_stopped_early_in_a_sample() -> None:
    """One device in five fails: nearly always stopped, most of the fleet never asked."""
    stopped, exposed = shares(60, 200, 0.2)
    assert stopped >= 0.95
    assert exposed < 60


@pytest.mark.full
@pytest.mark.parametrize(("fleet", "rate", "least", "most"), [(50, 0.02, 0.0, 0.05), (200, 0.1, 0.95, 1.0)])
def test_error_rates_in_ten_thousand_rollouts(fleet: int, rate: float, least: float, most: float) -> None:
    """The figures of the notes, with four standard errors of room."""
    stopped, exposed = shares(10_000, fleet, rate)
    print(f"fleet {fleet}, rate {rate}: stopped {stopped:.3f}, exposed {exposed:.0f}")
    room = 4 * math.sqrt(0.05 * 0.95 / 10_000)
    assert least - room <= stopped <= most + room
