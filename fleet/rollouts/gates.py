"""The gate: from what devices reported to `proceed`, `wait`, `roll_back` or `hold`, with the sentence a person reads.

Devices are the units, one bit or bounded number each, because inferences of one device are not independent. Two mixtures
of bets (betting.py) are valid at every look by Ville's inequality, so their running maxima count: `E_bad` against "no
worse than p0", shared with every other test that may stop the rollout (processes.py), and `E_ok` against "at least p1".
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from fleet.rollouts import betting, pace, processes
from fleet.rollouts.binomial import upper_bound
from fleet.rollouts.processes import BROKEN, KEPT, OPEN, SILENT, UNCOUNTED, UNPROVEN, WORSE, Gate, Outcome
from fleet.rollouts.strategy import Strategy

# Below this many devices a share of failures says nothing by itself.
SAFETY_MIN_DEVICES = 20

Decision = Literal["proceed", "wait", "roll_back", "hold"]


@dataclass(frozen=True)
class Limits:
    """What the gate tolerates."""

    alpha: float = 0.05
    beta: float = 0.1
    p0: float = 0.02
    p1: float = 0.1
    safety_limit: float = 0.3
    tolerated: Mapping[str, float] = field(default_factory=dict)  # by signal; those not named are not judged

    @classmethod
    def of(cls, strategy: Strategy) -> "Limits":
        """The limits that a strategy names."""
        return cls(
            strategy.alpha,
            strategy.beta,
            strategy.p0,
            strategy.p1,
            strategy.safety_limit,
            strategy.tolerances(),
        )


@dataclass(frozen=True)
class Evidence:
    """Everything the gate looks at after a wave, or in the middle of one; outcomes in the order of the plan."""

    outcomes: Sequence[Outcome]
    wave: int
    wave_is_over: bool
    left: int  # devices of this rollout that were not asked yet
    proceeds_without_evidence: bool
    # All targets of the rollout: who shares alpha is fixed before anything is seen.
    targets: Sequence[str] = ()
    # Questions that a person has answered with "go on" before.
    accepted: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Verdict:
    """The decision, one plain sentence, and the figures behind it."""

    decision: Decision
    sentence: str
    extend_by: int = 0
    figures: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, as kept with the wave and in the notes of decisions."""
        return {
            "decision": self.decision,
            "sentence": self.sentence,
            "extend_by": self.extend_by,
            **self.figures,
        }


def evaluate(evidence: Evidence, limits: Limits) -> Verdict:
    """What the rollout shall do next."""
    judgement = processes.judge(evidence.outcomes, _claims(evidence, limits))
    figures = _figures(evidence, limits, judgement)
    stop = _stop(evidence, limits, figures, judgement)
    if stop:
        return Verdict("roll_back", stop, figures=figures)
    if not evidence.wave_is_over:
        return Verdict("wait", f"the wave is under way: {_counts(figures)}", figures=figures)
    wave = [o for o in evidence.outcomes if o.wave == evidence.wave]
    if not any(o.result == KEPT for o in wave or evidence.outcomes):
        return Verdict("hold", _nobody_kept(evidence.wave, wave), figures=figures)
    question = _question(evidence, judgement, limits)
    if question:
        figures["question"] = [question.name, question.target]
        return Verdict("hold", f"{question.sentence}; a person decides", figures=figures)
    return _go_on(evidence, limits, figures)


def for_approval(verdict: Verdict, wave: int) -> Verdict:
    """The same, but a person says yes before the next wave opens."""
    if verdict.decision != "proceed":
        return verdict
    return replace(
        verdict, decision="hold", sentence=f"{verdict.sentence}; wave {wave} waits for a person's yes"
    )


def measure(evidence: Evidence, limits: Limits) -> dict[str, Any]:
    """Counts, both mixtures' running maxima, the 95 % upper bound of the failure rate, and every gate."""
    return _figures(evidence, limits, processes.judge(evidence.outcomes, _claims(evidence, limits)))


def devices_to_show(limits: Limits, so_far: Sequence[Outcome] = (), most: int = 100_000) -> int:
    """How many more devices, none failing, make `E_ok` reach 1 / beta; `most` when that many do not."""
    counted = _counted(so_far)
    failed = sum(o.failed for o in counted)
    logs = betting.logs_below(failed, len(counted), limits.p1)
    return betting.clean_needed(limits.p1, limits.beta, logs, most)


def _claims(evidence: Evidence, limits: Limits) -> processes.Claims:
    targets = sorted({*evidence.targets, *(o.target for o in evidence.outcomes)}) or [""]
    return processes.Claims(limits.alpha, limits.p0, limits.p1, limits.tolerated, targets)


def _figures(evidence: Evidence, limits: Limits, judgement: processes.Judgement) -> dict[str, Any]:
    ended = [o for o in evidence.outcomes if o.result != OPEN]
    counted = _counted(ended)
    failed = sum(o.failed for o in counted)
    return {
        "n": len(counted),
        "failed": failed,
        "uncounted": len(ended) - len(counted),
        "open": len(evidence.outcomes) - len(ended),
        "results": dict(Counter(o.result for o in ended)),
        "e_bad": round(judgement.stop, 4),
        "e_bad_needed": round(1 / limits.alpha, 4),
        "e_ok": round(_peak_ok(evidence.outcomes, limits), 4),
        "e_ok_needed": round(1 / limits.beta, 4),
        "upper": round(upper_bound(failed, len(counted)), 4),
        "gates": [gate.as_dict() for gate in judgement.gates],
    }


def _counted(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if o.result not in UNCOUNTED]


def _peak_ok(outcomes: Sequence[Outcome], limits: Limits) -> float:
    """Running maximum of the evidence for a good version; who has not answered might yet fail."""
    x = np.array([float(o.failed or o.result == OPEN) for o in _counted(outcomes)])
    return float(betting.rate_below(x, limits.p1).max(initial=1.0))


def _stop(evidence: Evidence, limits: Limits, figures: dict[str, Any], judgement: processes.Judgement) -> str:
    """The sentence of a roll-back, or '' when nothing asks for one."""
    n, failed = figures["n"], figures["failed"]
    # Those still at work count as well: failing is often quicker than succeeding.
    if n >= SAFETY_MIN_DEVICES and failed >= limits.safety_limit * (n + figures["open"]):
        return f"{failed} of {n} devices failed; the hard limit is {limits.safety_limit:.0%}"
    if judgement.stop >= 1 / limits.alpha:
        return _why_stopped(limits, figures, judgement)
    if not evidence.wave_is_over:
        return ""
    wave = [o for o in evidence.outcomes if o.wave == evidence.wave]
    worse = sum(o.result == WORSE for o in wave)
    # One device alone may go back by bad luck: in a rollout of many small waves one of them will, however good it is.
    telling = sum(o.failed for o in wave) > 1 or not any(o.result == KEPT for o in evidence.outcomes)
    if worse and telling and not any(o.result == KEPT for o in wave):
        return (
            f"no device of wave {evidence.wave} kept the new artifact, and {worse} went back by "
            f"{'its' if worse == 1 else 'their'} own verdict"
        )
    return ""


def _why_stopped(limits: Limits, figures: dict[str, Any], judgement: processes.Judgement) -> str:
    """The gate that says most, in words; all together may have crossed where none did alone."""
    gates = [gate for gate in judgement.gates if gate.stops]
    first = max(gates, key=lambda gate: gate.evidence / gate.boundary)
    if first.name != "failures" or first.target:
        return first.sentence
    return (
        f"{figures['failed']} of {figures['n']} devices failed, more than {limits.p0:.0%} can explain "
        f"(evidence {figures['e_bad']:.3g}, {figures['e_bad_needed']:.3g} was needed)"
    )


def _question(evidence: Evidence, judgement: processes.Judgement, limits: Limits) -> Gate | None:
    """The label-free signal that a person should look at, unless one did."""
    if judgement.hold < 1 / limits.alpha:
        return None
    asking = [gate for gate in judgement.gates if not gate.stops]
    first = max(asking, key=lambda gate: gate.evidence / gate.boundary)
    return None if (first.name, first.target) in evidence.accepted else first


def _nobody_kept(wave: int, outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return f"nobody was left to ask in wave {wave}, so a person decides"
    found = Counter(o.result for o in outcomes)
    parts = [
        f"{found[result]} {words}"
        for result, words in (
            (WORSE, "went back by its own verdict"),
            (BROKEN, "could not install it"),
            (SILENT, "did not answer in time"),
            (UNPROVEN, "installed it without evidence"),
        )
        if found[result]
    ]
    return f"none of the {len(outcomes)} devices of wave {wave} showed it good: {', '.join(parts)}; a person decides"


def _go_on(evidence: Evidence, limits: Limits, figures: dict[str, Any]) -> Verdict:
    if figures["e_ok"] >= figures["e_ok_needed"]:
        sentence = f"{_counts(figures)}; {limits.p1:.0%} or more is excluded"
        return Verdict("proceed", sentence, figures=figures)
    missing = devices_to_show(limits, evidence.outcomes, most=evidence.left + 1)
    doubt = f"{_counts(figures)}; up to {figures['upper']:.0%} not excluded"
    if evidence.left >= missing:
        extend = min(pace.extension(len(evidence.outcomes)), evidence.left)
        return Verdict("wait", f"{doubt}, so {extend} more are asked before the next wave", extend, figures)
    if evidence.proceeds_without_evidence:
        return Verdict("proceed", f"{doubt}, and this fleet is too small to show more", figures=figures)
    return Verdict(
        "hold", f"{doubt}, and nobody is left who could show more; a person decides", figures=figures
    )


def _counts(figures: dict[str, Any]) -> str:
    uncounted = f" ({figures['uncounted']} without evidence)" if figures["uncounted"] else ""
    return f"{figures['failed']} of {figures['n']} failed{uncounted}"
