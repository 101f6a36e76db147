"""What a simulation imagines: how devices and people behave, what is true of a version, and what devices then measure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from fleet.rollouts import signals
from fleet.rollouts.betting import Array
from fleet.rollouts.mixture import Bits, Differences, Floats
from fleet.rollouts.planning import Plan, Share
from fleet.rollouts.strategy import Strategy

# Standard deviation of a device's own difference, where no rollout has shown it yet.
USUAL_NOISE = 0.1
# Half of the people who are asked have answered by then.
USUAL_ANSWER_S = 4 * 3600.0


@dataclass(frozen=True)
class Fleet:
    """How devices and people behave: usual seconds of a delivery by target, the share that is away when asked, by signal
    the standard deviation of what one device measures, the share of tries that fail for a reason that passes, and the
    seconds after which half of the people who are asked have answered."""

    now: datetime
    seconds: Mapping[str, float] = field(default_factory=dict)
    away: float = 0.0
    noise: Mapping[str, float] = field(default_factory=dict)
    flaky: float = 0.0
    answer_s: float = USUAL_ANSWER_S


@dataclass(frozen=True)
class Truth:
    """What is true of the version: the share of devices on which it fails, in all or by target, and what it does to the rest.

    own_verdict: the trial on the device finds it worse; otherwise it cannot be installed. latency: relative rise of the
    median latency of a device, 0.5 is half as slow again. accuracy: share of right answers that is lost, beyond what
    the trial on the device finds. confidence, class_mix: by how much answers change that nobody labels. season: what
    changes on every device meanwhile, whatever it runs, by signal.
    """

    failing: float = 0.0
    by_target: Mapping[str, float] = field(default_factory=dict)
    own_verdict: bool = True
    latency: float = 0.0
    accuracy: float = 0.0
    confidence: float = 0.0
    class_mix: float = 0.0
    season: Mapping[str, float] = field(default_factory=dict)

    def rates(self, shares: Sequence[Share]) -> Array:
        """The rate of each device."""
        return np.array([self.by_target.get(share.target, self.failing) for share in shares])

    @property
    def worse(self) -> dict[str, float]:
        """Mean difference of each signal that is not nothing."""
        named = {name: getattr(self, name) for name in ("latency", "accuracy", "confidence", "class_mix")}
        return {name: value for name, value in named.items() if value}

    @property
    def moved(self) -> set[str]:
        """Signals that change, by the version or by the season."""
        return {*self.worse, *(name for name, value in self.season.items() if value)}

    def unseen(self, rules: Strategy) -> list[str]:
        """What is worse and not judged by this strategy."""
        return [name for name in self.worse if name not in rules.tolerances()]


def numbers_of_a_device(plan: Plan, truth: Truth, rules: Strategy) -> int:
    """How many numbers a device has in one imagined rollout."""
    judged = rules.tolerances()
    names = [name for name in truth.moved if name in judged]
    return 1 + len(names) + sum(signals.held_back_name(name) in judged for name in names)


def differences(
    failed: Bits, plan: Plan, fleet: Fleet, truth: Truth, rules: Strategy, random: np.random.Generator
) -> Differences:
    """What devices would report: the truth and each one's own deviation; NaN where nothing ran before or it went back.

    Where devices are held back, what they are compared with is drawn as well, and paired as the engine pairs them.
    """
    judged, shares = rules.tolerances(), plan.shares
    nothing = failed | np.array([not share.compares for share in shares])
    drawn: dict[str, Floats] = {}
    for name in sorted(truth.moved & set(judged)):
        scatter = fleet.noise.get(name, USUAL_NOISE)
        season = truth.season.get(name, 0.0)
        mean = truth.worse.get(name, 0.0) + season
        noise = random.standard_normal(failed.shape, dtype=np.float32) * np.float32(scatter)
        drawn[name] = np.where(nothing, np.float32("nan"), np.clip(mean + noise, -1, 1).astype(np.float32))
        paired = signals.held_back_name(name)
        if paired in judged:
            drawn[paired] = _against_held_back(drawn[name], plan, season, scatter, random)
    return drawn


def _against_held_back(
    own: Floats, plan: Plan, season: float, scatter: float, random: np.random.Generator
) -> Floats:
    """Each held-back device's share of the new ones less itself, halved, known with the last of that share."""
    found = np.full(own.shape, np.float32("nan"))
    for block in blocks(plan):
        values = own[:, block]
        counts = (~np.isnan(values)).sum(axis=1)
        mean = np.where(counts, np.nansum(values, axis=1) / np.maximum(counts, 1), np.nan)
        held = np.clip(season + random.standard_normal(len(own)) * scatter, -1, 1)
        found[:, block[-1]] = (mean - held) / 2
    return found


def blocks(plan: Plan) -> Iterator[npt.NDArray[np.int64]]:
    """For each device held back, the places of those that are compared with it, wave by wave."""
    shares = plan.shares
    ends = np.cumsum([len(wave) for wave in plan.waves])
    for target, unused in plan.held_targets.items():
        places = np.array([at for at, share in enumerate(shares) if share.target == target], dtype=np.int64)
        begun = 0
        for end in ends:
            upto = int(np.searchsorted(places, end))
            fresh = upto - begun
            due = min(signals.held_back_due(unused, fresh, len(places) - upto), fresh)
            if due:
                yield from np.array_split(places[begun:upto], due)
            unused, begun = unused - due, upto
