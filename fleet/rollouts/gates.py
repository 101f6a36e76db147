"""The gate: from what devices reported to `proceed`, `wait`, `roll_back` or `hold`, with the sentence a person reads.

Devices are the units, one bit each, because inferences of one device are not independent. Two mixtures of bets
(test martingales; Waudby-Smith & Ramdas 2023) are valid at every look by Ville's inequality, so their running maxima count:
`E_bad` against "no worse than p0" and `E_ok` against "at least p1". Several tests that may stop a rollout
share alpha by averaging: a weighted mean of e-processes is an e-process.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fleet.rollouts.strategy import Strategy

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)

# Shares of alpha: all devices together, each target by itself, labelled accuracy.
WEIGHT_ALL, WEIGHT_TARGETS, WEIGHT_ACCURACY = 0.5, 0.25, 0.25

# Below this many devices a share of failures says nothing by itself.
SAFETY_MIN_DEVICES = 20

KEPT, UNPROVEN, WORSE, BROKEN, SILENT = "kept", "unproven", "worse", "broken", "silent"
UNCOUNTED = (UNPROVEN, SILENT)

Decision = Literal["proceed", "wait", "roll_back", "hold"]


@dataclass(frozen=True)
class Limits:
    """What the gate tolerates."""

    alpha: float = 0.05
    beta: float = 0.1
    p0: float = 0.02
    p1: float = 0.1
    safety_limit: float = 0.3

    @classmethod
    def of(cls, strategy: Strategy) -> "Limits":
        """The limits that a strategy names."""
        return cls(strategy.alpha, strategy.beta, strategy.p0, strategy.p1, strategy.safety_limit)


@dataclass(frozen=True)
class Outcome:
    """How one device's delivery ended, in the order of ending.

    kept: its trial found the artifact good. unproven: installed, but its trial saw too little. worse: its own trial went
    back. broken: it could not install. silent: it never answered. Unproven and silent devices are no evidence.
    """

    device: str
    target: str
    result: str
    wave: int
    accuracy: float | None = None  # share of correct labelled answers, seen once a device
    floor: float | None = None  # what that share should reach at least

    @property
    def failed(self) -> bool:
        """Whether the device counts as a failure."""
        return self.result in (WORSE, BROKEN)


@dataclass(frozen=True)
class Evidence:
    """Everything the gate looks at after a wave, or in the middle of one."""

    outcomes: Sequence[Outcome]
    wave: int
    wave_is_over: bool
    left: int  # devices of this rollout that were not asked yet
    proceeds_without_evidence: bool
    targets: Sequence[
        str
    ] = ()  # all targets of the rollout: who shares alpha is fixed before anything is seen
    judges_accuracy: bool = False  # whether devices are expected to label


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


class Bets:
    """A mixture of bets that the mean of numbers in [0, 1] lies above (or below) a rate; value 1 at the start."""

    def __init__(self, rate: float, above: bool) -> None:
        self.rate = rate
        self.sign = 1.0 if above else -1.0
        self.stakes = [fraction / (rate if above else 1 - rate) for fraction in FRACTIONS]
        self.logs = [0.0] * len(FRACTIONS)

    def observe(self, x: float) -> None:
        """Take one number into account."""
        gain = self.sign * (x - self.rate)
        self.logs = [
            log + math.log1p(stake * gain) for log, stake in zip(self.logs, self.stakes, strict=True)
        ]

    def value(self) -> float:
        """The capital now."""
        return sum(math.exp(min(log, 300.0)) for log in self.logs) / len(FRACTIONS)


def evaluate(evidence: Evidence, limits: Limits) -> Verdict:
    """What the rollout shall do next."""
    figures = measure(evidence, limits)
    stop = _stop(evidence, limits, figures)
    if stop:
        return Verdict("roll_back", stop, figures=figures)
    if not evidence.wave_is_over:
        return Verdict("wait", f"the wave is under way: {_counts(figures)}", figures=figures)
    wave = [o for o in evidence.outcomes if o.wave == evidence.wave]
    if not any(o.result == KEPT for o in wave or evidence.outcomes):
        return Verdict("hold", _nobody_kept(evidence.wave, wave), figures=figures)
    return _go_on(evidence, limits, figures)


def measure(evidence: Evidence, limits: Limits) -> dict[str, Any]:
    """Counts, both e-processes' running maxima, and the 95 % upper bound of the failure rate."""
    outcomes = evidence.outcomes
    counted = _counted(outcomes)
    failed = sum(o.failed for o in counted)
    return {
        "n": len(counted),
        "failed": failed,
        "uncounted": len(outcomes) - len(counted),
        "results": dict(Counter(o.result for o in outcomes)),
        "e_bad": round(_peak_bad(evidence, limits), 4),
        "e_bad_needed": round(1 / limits.alpha, 4),
        "e_ok": round(_peak_ok(counted, limits), 4),
        "e_ok_needed": round(1 / limits.beta, 4),
        "upper": round(upper_bound(failed, len(counted)), 4),
    }


def _counted(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if o.result not in UNCOUNTED]


def devices_to_show(limits: Limits, so_far: Sequence[Outcome] = (), most: int = 100_000) -> int:
    """How many more devices, none failing, make `E_ok` reach 1 / beta; `most` when that many do not."""
    bets = Bets(limits.p1, above=False)
    for outcome in so_far:
        bets.observe(float(outcome.failed))
    needed = 0
    while bets.value() < 1 / limits.beta and needed < most:
        bets.observe(0.0)
        needed += 1
    return needed


def upper_bound(failed: int, n: int, confidence: float = 0.95) -> float:
    """Clopper-Pearson upper bound of a rate, by bisection; 1 when nothing was seen."""
    if failed >= n:
        return 1.0
    low, high = failed / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _binomial_cdf(failed, n, middle) > 1 - confidence else (low, middle)
    return high


def _binomial_cdf(k: int, n: int, p: float) -> float:
    term = n * math.log1p(-p)
    total = math.exp(term)
    for i in range(k):
        term += math.log(n - i) - math.log(i + 1) + math.log(p) - math.log1p(-p)
        total += math.exp(term)
    return total


def _peak_bad(evidence: Evidence, limits: Limits) -> float:
    """Running maximum of the weighted mean of all processes that may stop the rollout."""
    stoppers = _Stoppers(evidence, limits.p0)
    peak = 1.0
    for outcome in _counted(evidence.outcomes):
        stoppers.observe(outcome)
        peak = max(peak, stoppers.value())
    return peak


class _Stoppers:
    """All devices together, each target by itself, and labelled accuracy, with weights that the data cannot move."""

    def __init__(self, evidence: Evidence, p0: float) -> None:
        self.everyone = Bets(p0, above=True)
        targets = sorted({*evidence.targets, *(o.target for o in evidence.outcomes)})
        # With one target the second test would be the first again.
        self.by_target = {target: Bets(p0, above=True) for target in targets} if len(targets) > 1 else {}
        self.accuracy = _AccuracyBets() if evidence.judges_accuracy else None

    def observe(self, outcome: Outcome) -> None:
        x = float(outcome.failed)
        self.everyone.observe(x)
        if self.by_target:
            self.by_target[outcome.target].observe(x)
        if self.accuracy:
            self.accuracy.observe(outcome)

    def value(self) -> float:
        parts = [(WEIGHT_ALL, self.everyone.value())]
        if self.by_target:
            mean = sum(bets.value() for bets in self.by_target.values()) / len(self.by_target)
            parts.append((WEIGHT_TARGETS, mean))
        if self.accuracy:
            parts.append((WEIGHT_ACCURACY, self.accuracy.value()))
        return sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)


class _AccuracyBets:
    """Bets against "the mean accuracy on devices reaches the floor", one number a device."""

    def __init__(self) -> None:
        self.logs = [0.0] * len(FRACTIONS)

    def observe(self, outcome: Outcome) -> None:
        if outcome.accuracy is None or outcome.floor is None:
            return
        floor = min(max(outcome.floor, 0.001), 0.999)
        # floor - x is never below floor - 1, so every stake keeps its factor positive.
        gain = (floor - outcome.accuracy) / (1 - floor)
        self.logs = [log + math.log1p(f * gain) for log, f in zip(self.logs, FRACTIONS, strict=True)]

    def value(self) -> float:
        return sum(math.exp(min(log, 300.0)) for log in self.logs) / len(FRACTIONS)


def _peak_ok(outcomes: Sequence[Outcome], limits: Limits) -> float:
    bets, peak = Bets(limits.p1, above=False), 1.0
    for outcome in outcomes:
        bets.observe(float(outcome.failed))
        peak = max(peak, bets.value())
    return peak


def _stop(evidence: Evidence, limits: Limits, figures: dict[str, Any]) -> str:
    """The sentence of a roll-back, or '' when nothing asks for one."""
    n, failed = figures["n"], figures["failed"]
    if n >= SAFETY_MIN_DEVICES and failed >= limits.safety_limit * n:
        return f"{failed} of {n} devices failed; the hard limit is {limits.safety_limit:.0%}"
    if figures["e_bad"] >= figures["e_bad_needed"]:
        return (
            f"{failed} of {n} devices failed, more than {limits.p0:.0%} can explain "
            f"(evidence {figures['e_bad']:.3g}, {figures['e_bad_needed']:.3g} was needed)"
        )
    if not evidence.wave_is_over:
        return ""
    wave = [o for o in evidence.outcomes if o.wave == evidence.wave]
    worse = sum(o.result == WORSE for o in wave)
    if worse and not any(o.result == KEPT for o in wave):
        return (
            f"no device of wave {evidence.wave} kept the new artifact, and {worse} went back by "
            f"{'its' if worse == 1 else 'their'} own verdict"
        )
    return ""


def _nobody_kept(wave: int, outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return f"nobody was left to ask in wave {wave}, so a person decides"
    found = Counter(o.result for o in outcomes)
    parts = [
        f"{found[result]} {words}"
        for result, words in (
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
    missing = devices_to_show(limits, _counted(evidence.outcomes), most=evidence.left + 1)
    doubt = f"{_counts(figures)}; up to {figures['upper']:.0%} not excluded"
    if evidence.left >= missing:
        extend = min(max(1, len(evidence.outcomes) // 2), evidence.left)
        return Verdict("wait", f"{doubt}, so {extend} more are asked before the next wave", extend, figures)
    if evidence.proceeds_without_evidence:
        return Verdict("proceed", f"{doubt}, and this fleet is too small to show more", figures=figures)
    return Verdict(
        "hold", f"{doubt}, and nobody is left who could show more; a person decides", figures=figures
    )


def _counts(figures: dict[str, Any]) -> str:
    uncounted = f" ({figures['uncounted']} without evidence)" if figures["uncounted"] else ""
    return f"{figures['failed']} of {figures['n']} failed{uncounted}"
