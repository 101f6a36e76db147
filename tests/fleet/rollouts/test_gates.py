"""Gates: the rule of small cases, and the sentences people read."""

import pytest

from fleet.rollouts.binomial import upper_bound
from fleet.rollouts.gates import Evidence, Limits, devices_to_show, evaluate
from fleet.rollouts.processes import Outcome
from fleet.rollouts.signals import Measure, below_floor

LIMITS = Limits()
JUDGED = Limits(tolerated={"accuracy_floor": 0.0, "latency": 0.25, "confidence": 0.15})


def seen(results: str, wave: int = 1, left: int = 0, proceeds: bool = True, over: bool = True) -> Evidence:
    """Evidence written as k(ept), w(orse), b(roken), s(ilent), u(nproven), o(pen)."""
    words = {"k": "kept", "w": "worse", "b": "broken", "s": "silent", "u": "unproven", "o": "open"}
    outcomes = [Outcome(f"d{n}", "pi-4", words[letter], wave) for n, letter in enumerate(results)]
    return Evidence(outcomes, wave, over, left, proceeds)


def measured(size: int, **measures: Measure) -> Evidence:
    """Devices that all kept the artifact, with these numbers each."""
    outcomes = [Outcome(f"d{n}", "pi-4", "kept", 1, measures) for n in range(size)]
    return Evidence(outcomes, 1, True, 5, True, targets=["pi-4"])


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
        (seen("o" * 150 + "bb" + "o" * 50, over=False), "wait"),  # failures are quick: the others count
        (seen("b" * 20 + "o" * 1000, left=0, over=False), "roll_back"),
    ],
)
def test_decisions(evidence: Evidence, decision: str) -> None:
    """What a person would expect in small cases, each with a sentence."""
    verdict = evaluate(evidence, LIMITS)
    assert verdict.decision == decision
    assert verdict.sentence


@pytest.mark.parametrize(("second", "decision"), [("w", "hold"), ("ww", "roll_back")])
def test_one_device_alone_that_went_back_asks_a_person_where_another_kept_it(
    second: str, decision: str
) -> None:
    """A wave of one is no more than that device."""
    outcomes = [*seen("k").outcomes, *seen(second, wave=2).outcomes]
    verdict = evaluate(Evidence(outcomes, 2, True, 4, True), LIMITS)
    assert (verdict.decision, "by its own verdict" in verdict.sentence) == (decision, second == "w")


def test_sentences_say_what_is_not_excluded() -> None:
    """The words of the design."""
    assert "0 of 6 failed; up to 39% not excluded" in evaluate(seen("k" * 6), LIMITS).sentence


def test_an_extension_is_two_fifths_of_those_asked() -> None:
    """The canary grows, not the fleet."""
    verdict = evaluate(seen("k" * 10, left=200), LIMITS)
    assert (verdict.decision, verdict.extend_by) == ("wait", 4)
    assert evaluate(seen("k", left=200), LIMITS).extend_by == 1


def test_fewer_devices_than_the_notes_need_show_that_it_is_good() -> None:
    """A test of fixed size needs 22 without a failure, and the notes' grid 40."""
    assert 22 < devices_to_show(LIMITS) <= 28
    assert devices_to_show(LIMITS, seen("k" * 10).outcomes) == devices_to_show(LIMITS) - 10
    assert upper_bound(0, 22) < 0.13


def test_one_failed_first_device_is_not_enough() -> None:
    """Two in a row are."""
    assert evaluate(seen("b", left=500), LIMITS).figures["e_bad"] < 20
    assert evaluate(seen("bb", left=500), LIMITS).figures["e_bad"] > 20


def test_low_accuracy_on_devices_that_kept_it_stops_the_rollout() -> None:
    """Installed everywhere, wrong everywhere."""
    verdict = evaluate(measured(8, accuracy_floor=below_floor(0.3, 0.9)), JUDGED)
    assert verdict.decision == "roll_back"
    assert "labelled accuracy lies below" in verdict.sentence
    assert evaluate(measured(8, accuracy_floor=below_floor(0.95, 0.9)), JUDGED).decision == "proceed"


def test_slower_devices_stop_the_rollout() -> None:
    """Twice as slow on every device; a fifth slower is tolerated."""
    verdict = evaluate(measured(20, latency=Measure(1.0)), JUDGED)
    assert verdict.decision == "roll_back"
    assert "inferences take longer on pi-4: +1.000 on 20 devices" in verdict.sentence
    assert evaluate(measured(60, latency=Measure(0.2)), JUDGED).decision == "proceed"


def test_less_sure_answers_ask_a_person_once() -> None:
    """The world may have changed as well as the model: nobody rolls back for it, and a person's yes holds."""
    evidence = measured(20, confidence=Measure(0.8))
    verdict = evaluate(evidence, JUDGED)
    assert verdict.decision == "hold"
    assert "less sure" in verdict.sentence
    passed = Evidence(evidence.outcomes, 1, True, 5, True, ["pi-4"], accepted=[("confidence", "pi-4")])
    assert evaluate(passed, JUDGED).decision == "proceed"


def test_one_bad_target_is_found_among_good_ones() -> None:
    """3 of 4 of one target fail while 60 others are fine."""
    outcomes = [Outcome(f"a{n}", "pi-4", "kept", 1) for n in range(60)]
    outcomes += [Outcome(f"b{n}", "pi-5", "broken", 1) for n in range(3)]
    verdict = evaluate(Evidence(outcomes, 1, True, 50, False, ["pi-4", "pi-5"]), LIMITS)
    assert verdict.decision == "roll_back"
    assert "pi-5" in verdict.sentence


def test_numbers_wait_for_those_before_them() -> None:
    """Numbers of devices that answered early would be a selection, so they count from the front on."""
    slow = {"latency": Measure(1.0)}
    outcomes = [Outcome("first", "pi-4", "kept", 1, measured=False)]
    outcomes += [Outcome(f"d{n}", "pi-4", "kept", 1, slow) for n in range(30)]
    waiting = Evidence(outcomes, 1, False, 0, True)
    assert evaluate(waiting, JUDGED).decision == "wait"
    done = [Outcome("first", "pi-4", "kept", 1, slow), *outcomes[1:]]
    assert evaluate(Evidence(done, 1, False, 0, True), JUDGED).decision == "roll_back"


def test_every_gate_is_shown_with_its_own_boundary() -> None:
    """Shares of alpha add up to one: what each needs alone is 1 / (alpha x share)."""
    evidence = Evidence(measured(4).outcomes, 1, True, 20, True, ["pi-4", "pi-5"])
    gates = [gate for gate in evaluate(evidence, JUDGED).figures["gates"] if gate["stops"]]
    assert {(gate["name"], gate["target"]) for gate in gates} == {
        ("failures", ""),
        ("failures", "pi-4"),
        ("failures", "pi-5"),
        *((name, target) for name in ("accuracy_floor", "latency") for target in ("pi-4", "pi-5")),
    }
    assert sum(1 / gate["boundary"] for gate in gates) == pytest.approx(0.05, rel=1e-3)
