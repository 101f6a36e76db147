"""Every e-process of a rollout, over its devices in the order of the plan, and how they share alpha.

The order is the plan's and not that of answering: failures are often quicker than successes, and whoever counts the quick
ones first stops good rollouts. A device that was asked and has not answered counts as one that did not fail, which can
only make a stop later. So what any look sees lies below the process of all answers in order, and Ville's inequality holds
for every look, however late reports are and however waves are cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fleet.rollouts import betting
from fleet.rollouts.betting import Array, Mask
from fleet.rollouts.signals import BY_NAME, SIGNALS, Measure, Signal, held_back_name

# Shares of alpha: all devices together, each target by itself, measured differences; only those in use count.
WEIGHT_ALL, WEIGHT_TARGETS, WEIGHT_SIGNALS = 0.6, 0.15, 0.25

KEPT, UNPROVEN, WORSE, BROKEN, SILENT, OPEN = "kept", "unproven", "worse", "broken", "silent", "open"
UNCOUNTED = (UNPROVEN, SILENT)


@dataclass(frozen=True)
class Outcome:
    """How one device's delivery ended.

    kept: its trial found the artifact good. unproven: installed, but its trial saw too little. worse: its own trial went
    back. broken: it could not install. silent: it never answered. open: asked, no end yet. Unproven and silent devices
    are no evidence.
    """

    device: str
    target: str
    result: str
    wave: int
    measures: Mapping[str, Measure] = field(default_factory=dict)
    measured: bool = True  # False while what the field says of it is still awaited

    @property
    def failed(self) -> bool:
        """Whether the device counts as a failure."""
        return self.result in (WORSE, BROKEN)


@dataclass(frozen=True)
class Gate:
    """One test: its evidence, what it needs alone, and on how many devices."""

    name: str
    target: str  # empty: all targets together
    evidence: float
    boundary: float
    n: int
    mean: float
    tolerated: float
    stops: bool = True

    @property
    def crossed(self) -> bool:
        """Whether this test by itself says no."""
        return self.evidence >= self.boundary

    @property
    def sentence(self) -> str:
        """What a person reads."""
        where = f" on {self.target}" if self.target else ""
        if self.name == "failures":
            found = f"{self.mean:.1%} of {self.n} devices{where} failed, {self.tolerated:.1%} is tolerated"
        else:
            signal = BY_NAME[self.name]
            mean, tolerated = self.mean * signal.scale, self.tolerated * signal.scale
            found = f"{signal.worse}{where}: {mean:+.3f} on {self.n} devices, {tolerated:.3f} is tolerated"
        return f"{found} (evidence {self.evidence:.3g}, {self.boundary:.3g} alone would be needed)"

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        kept = ("name", "target", "n", "tolerated", "stops", "crossed", "sentence")
        figures = {name: round(getattr(self, name), 4) for name in ("evidence", "boundary", "mean")}
        return {name: getattr(self, name) for name in kept} | figures


@dataclass(frozen=True)
class Claims:
    """What is claimed of a good version, and how often a good one may be stopped."""

    alpha: float
    p0: float
    p1: float
    tolerated: Mapping[str, float]  # by signal; those not named are not judged
    targets: Sequence[str]


@dataclass(frozen=True)
class Judgement:
    """Running maxima of the two mixtures, and every gate in them."""

    stop: float
    hold: float
    gates: list[Gate]


def judge(outcomes: Sequence[Outcome], claims: Claims) -> Judgement:
    """All processes, mixed with weights that the data cannot move."""
    seen = _Seen(outcomes)
    rates = _rate_parts(seen, claims)
    signals = [(signal, _signal_parts(seen, claims, signal)) for signal in judged(claims.tolerated)]
    stopping = [parts for signal, parts in signals if signal.stops]
    asking = [parts for signal, parts in signals if not signal.stops]
    shares = _normed([*rates, *_share(stopping, WEIGHT_SIGNALS)])
    holds = _share(asking, 1.0)
    gates = [part.gate(weight, claims.alpha) for weight, part in (*shares, *holds)]
    return Judgement(_peak(shares, len(outcomes)), _peak(holds, len(outcomes)), gates)


def judged(tolerated: Mapping[str, float]) -> list[Signal]:
    """The signals that a rollout looks at, in the order of the table.

    Where devices held back show what changed everywhere, a device's change against itself only asks a person.
    """
    named = [signal for signal in SIGNALS if signal.name in tolerated]
    return [
        replace(signal, stops=signal.stops and held_back_name(signal.name) not in tolerated)
        for signal in named
    ]


class _Seen:
    """The outcomes as arrays."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes
        self.failed: Array = np.array([float(o.failed) for o in outcomes])
        self.counts: Mask = np.array([o.result not in UNCOUNTED for o in outcomes], dtype=bool)
        self.ended: Mask = np.array([o.result != OPEN for o in outcomes], dtype=bool)
        self.target = np.array([o.target for o in outcomes], dtype=object)
        # Numbers count up to the first that is awaited, or those that come early would be a selection.
        awaited = [at for at, o in enumerate(outcomes) if o.result == OPEN or not o.measured]
        self.measured_upto = awaited[0] if awaited else len(outcomes)


@dataclass(frozen=True)
class _Part:
    """One process with what its gate says."""

    name: str
    target: str
    capital: Array
    n: int
    mean: float
    tolerated: float
    stops: bool

    def gate(self, weight: float, alpha: float) -> Gate:
        peak = float(self.capital.max(initial=1.0))
        return Gate(
            self.name,
            self.target,
            peak,
            1 / (alpha * weight),
            self.n,
            self.mean,
            self.tolerated,
            self.stops,
        )


Shares = list[tuple[float, _Part]]


def _rate_parts(seen: _Seen, claims: Claims) -> Shares:
    shares: Shares = [(WEIGHT_ALL, _rate_part(seen, claims, "", seen.counts))]
    # With one target the second test would be the first again.
    if len(claims.targets) > 1:
        weight = WEIGHT_TARGETS / len(claims.targets)
        for target in claims.targets:
            shares.append((weight, _rate_part(seen, claims, target, seen.counts & (seen.target == target))))
    return shares


def _rate_part(seen: _Seen, claims: Claims, target: str, counts: Mask) -> _Part:
    capital = betting.rate_above(seen.failed, claims.p0, claims.p1, counts)
    ended = counts & seen.ended
    n = int(ended.sum())
    share = float(seen.failed[ended].mean()) if n else 0.0
    return _Part("failures", target, capital, n, share, claims.p0, True)


def _signal_parts(seen: _Seen, claims: Claims, signal: Signal) -> list[_Part]:
    return [_signal_part(seen, claims, signal, target) for target in claims.targets]


def _signal_part(seen: _Seen, claims: Claims, signal: Signal, target: str) -> _Part:
    measures = [o.measures.get(signal.name) for o in seen.outcomes]
    counts = np.array([m is not None for m in measures], dtype=bool) & (seen.target == target)
    counts[seen.measured_upto :] = False
    values = np.array([m.value if m else 0.0 for m in measures])
    lowest = np.array([m.lowest if m else -1.0 for m in measures])
    tolerated = claims.tolerated[signal.name]
    capital = betting.mean_above(values, tolerated, lowest, counts)
    n = int(counts.sum())
    mean = float(values[counts].mean()) if n else 0.0
    return _Part(signal.name, target, capital, n, mean, tolerated, signal.stops)


def _share(groups: Sequence[Sequence[_Part]], weight: float) -> Shares:
    return [(weight / len(groups) / len(group), part) for group in groups for part in group]


def _peak(shares: Shares, size: int) -> float:
    """Running maximum of the weighted mean; a maximum of each by itself would not be allowed to be averaged."""
    if not shares or not size:
        return 1.0
    mixed = sum((weight * part.capital for weight, part in shares), np.zeros(size))
    return float(max(1.0, mixed.max()))


def _normed(shares: Shares) -> Shares:
    total = sum(weight for weight, _ in shares)
    return [(weight / total, part) for weight, part in shares]
