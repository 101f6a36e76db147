"""Thousands of rollouts played before the first one starts: how long, how many bytes, who is exposed, what is caught.

The gates' rule is the real one (replay.py). Time is a model: a delivery takes half its usual time and then a random rest
(exponential, so that half of them take longer than usual); devices that are away keep a wave waiting for its time-out. What people take to say yes is not played.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.errors import Refused
from fleet.rollouts import replay, windows
from fleet.rollouts.conditions import Window
from fleet.rollouts.gates import Limits
from fleet.rollouts.mixture import Bits, Counts, Differences
from fleet.rollouts.planning import Plan, Share
from fleet.rollouts.strategy import Strategy

DAY_S = 86_400.0
USUAL_S = 60.0
# Standard deviation of a device's own difference, where no rollout has shown it yet.
USUAL_NOISE = 0.1
# Rollouts x devices that one simulation may cost.
CELLS, CELLS_AT_ONCE = 20_000_000, 4_000_000
MOST_ROLLOUTS, LEAST_ROLLOUTS = 10_000, 100
OPENINGS = 200

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fleet:
    """How devices behave: usual seconds of a delivery by target, the share that is away when asked, and by signal the
    standard deviation of what one device measures."""

    now: datetime
    seconds: Mapping[str, float] = field(default_factory=dict)
    away: float = 0.0
    noise: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Truth:
    """What is true of the version: the share of devices on which it fails, in all or by target, and what it does to the rest.

    own_verdict: the trial on the device finds it worse; otherwise it cannot be installed. latency: relative rise of the
    median latency of a device, 0.5 is half as slow again. accuracy: share of right answers that is lost, beyond what
    the trial on the device finds.
    """

    failing: float = 0.0
    by_target: Mapping[str, float] = field(default_factory=dict)
    own_verdict: bool = True
    latency: float = 0.0
    accuracy: float = 0.0

    def rates(self, shares: Sequence[Share]) -> Floats:
        """The rate of each device."""
        return np.array([self.by_target.get(share.target, self.failing) for share in shares])

    @property
    def worse(self) -> dict[str, float]:
        """Mean difference of each signal that is not nothing."""
        return {
            name: value for name, value in (("latency", self.latency), ("accuracy", self.accuracy)) if value
        }

    def unseen(self, rules: Strategy) -> list[str]:
        """What is worse and not judged by this strategy."""
        return [name for name in self.worse if name not in rules.tolerances()]


@dataclass(frozen=True)
class Simulated:
    """Every simulated rollout."""

    stopped: Bits
    held: Bits
    exposed: Counts
    seconds: Floats
    bytes: Counts

    @property
    def n(self) -> int:
        """How many were played."""
        return len(self.stopped)

    @property
    def missed(self) -> float:
        """Share of rollouts that went to everybody, with nobody asked on the way."""
        return float((~self.stopped & ~self.held).mean())


def histogram(values: npt.NDArray[Any], bins: int = 20) -> list[tuple[float, float, int]]:
    """(from, to, how many) in bins of one width; a bin of integers holds whole numbers, from the first to the last."""
    if np.issubdtype(values.dtype, np.integer):
        low, span = int(values.min()), int(np.ptp(values)) + 1
        width = -(-span // bins)
        starts = np.arange(low, low + span, width)
        counts, _ = np.histogram(values, bins=[*starts, starts[-1] + width])
        return [(float(a), float(a + width - 1), int(n)) for n, a in zip(counts, starts, strict=True)]
    counts, edges = np.histogram(values.astype(float), bins=bins)
    return [(float(a), float(b), int(n)) for n, a, b in zip(counts, edges, edges[1:], strict=False)]


def simulate(
    plan: Plan,
    fleet: Fleet,
    truth: Truth,
    *,
    rules: Strategy | None = None,
    rollouts: int = 2000,
    seed: int = 0,
) -> Simulated:
    """Play the plan again and again, by default with the default strategy; what is held goes on, as if a person said so."""
    shares, rules = plan.shares, rules or Strategy()
    if not shares:
        raise Refused("a plan without devices cannot be played", remedy="Choose a group that has some.")
    cells = CELLS // (1 + len(truth.worse))
    rollouts = max(1, min(rollouts, MOST_ROLLOUTS, max(LEAST_ROLLOUTS, cells // max(1, len(shares)))))
    random = np.random.default_rng(seed)
    course = course_of(plan, rules, truth)
    at_once = max(1, CELLS_AT_ONCE // max(1, len(shares)))
    played, seconds = [], []
    for start in range(0, rollouts, at_once):
        clock = _Clock(min(at_once, rollouts - start), shares, fleet, rules, random)
        failed = random.random((len(clock.seconds), len(shares)), dtype=np.float32) < truth.rates(shares)
        drawn = _differences(failed.shape, shares, fleet, truth, rules, random)
        played.append(replay.play(failed, course, clock.as_clock, drawn))
        seconds.append(clock.seconds)
    stopped, held, exposed = (
        np.concatenate([getattr(each, name) for each in played]) for name in ("stopped", "held", "exposed")
    )
    sizes = np.cumsum([share.transport_bytes for share in shares])
    return Simulated(stopped, held, exposed, np.concatenate(seconds), sizes[exposed - 1])


def _differences(
    shape: tuple[int, ...],
    shares: Sequence[Share],
    fleet: Fleet,
    truth: Truth,
    rules: Strategy,
    random: np.random.Generator,
) -> Differences:
    """What devices would report: the truth and each one's own deviation; nothing where nothing ran before."""
    judged, new = rules.tolerances(), np.array([not share.compares for share in shares])
    drawn = {}
    for name, mean in truth.worse.items():
        if name in judged:
            noise = random.standard_normal(shape, dtype=np.float32) * fleet.noise.get(name, USUAL_NOISE)
            drawn[name] = np.where(new, np.float32("nan"), np.clip(mean + noise, -1, 1).astype(np.float32))
    return drawn


def course_of(plan: Plan, rules: Strategy, truth: Truth) -> replay.Course:
    """The plan as the replay sees it."""
    numbers = {target: n for n, target in enumerate(sorted({share.target for share in plan.shares}))}
    return replay.Course(
        ends=[int(end) for end in np.cumsum([len(wave) for wave in plan.waves])],
        targets=np.array([numbers[share.target] for share in plan.shares], dtype=np.int64),
        limits=Limits.of(rules),
        proceeds_without_evidence=rules.proceeds_without_evidence(plan.devices),
        own_verdict=truth.own_verdict,
        paced=rules.is_paced(plan.devices),
    )


class _Clock:
    """Seconds since the start, a number for each rollout."""

    def __init__(
        self,
        rollouts: int,
        shares: Sequence[Share],
        fleet: Fleet,
        rules: Strategy,
        random: np.random.Generator,
    ) -> None:
        self.seconds: Floats = np.zeros(rollouts)
        self.fleet, self.rules, self.random = fleet, rules, random
        usual = [fleet.seconds.get(share.target, USUAL_S) * (1 + len(share.hops)) for share in shares]
        self.usual = float(np.mean(usual))
        self.days = max(_days(share) for share in shares)
        self.openings = _openings(shares, fleet, rules)
        self.busiest = _busiest_site(shares)

    @property
    def as_clock(self) -> replay.Clock:
        """As the replay takes it."""
        return replay.Clock(self.asked, self.passed)

    def asked(self, rollouts: Bits, before: Counts, after: Counts) -> None:
        """Wait for the window, keep to the rate and the site's budget, then wait for the slowest."""
        devices = np.where(rollouts, after - before, 0)
        asking = devices > 0
        if len(self.openings):
            starts, ends = self.openings.T
            at = np.minimum(np.searchsorted(ends, self.seconds, side="right"), len(starts) - 1)
            self.seconds = np.where(asking, np.maximum(self.seconds, starts[at]), self.seconds)
        earliest = np.where(asking, self._earliest(after), 0.0)
        self.seconds = np.maximum(self.seconds, earliest)
        spent = self._at_the_rate(devices, before) + self._slowest(devices) + DAY_S * self.days
        self.seconds = self.seconds + np.where(asking, spent, 0.0)

    def passed(self, rollouts: Bits, wave: Counts) -> None:
        """Soak; and if one of the wave was away, its time-out comes first."""
        somebody = self.random.random(len(wave)) < 1 - (1 - self.fleet.away) ** np.maximum(wave, 0)
        waited = self.rules.soak_seconds + np.where(somebody, float(self.rules.delivery_timeout_s), 0.0)
        self.seconds = self.seconds + np.where(rollouts, waited, 0.0)

    def _slowest(self, devices: Counts) -> Floats:
        """The largest of so many random times, drawn at once."""
        drawn = self.random.random(len(devices)) ** (1 / np.maximum(devices, 1))
        rest: Floats = -np.log1p(-np.minimum(drawn, 1 - 1e-12)) / np.log(2)
        return self.usual / 2 * (1 + rest)

    def _at_the_rate(self, devices: Counts, before: Counts) -> Floats:
        rate = self.rules.rate
        if rate is None:
            return np.zeros(len(devices))
        steps = np.minimum(before // rate.after_successes, 60)
        per_minute = np.minimum(rate.per_minute * rate.factor**steps, rate.most_per_minute)
        waits: Floats = 60.0 * np.maximum(0, np.ceil(devices / per_minute) - 1)
        return waits

    def _earliest(self, after: Counts) -> Floats:
        """When the busiest site may have taken the bytes of all these devices."""
        budget = self.rules.budgets.site_bytes_per_day
        if budget is None or not self.busiest:
            return np.zeros(len(after))
        days: Floats = np.ceil(after * self.busiest / budget - 1e-9) - 1
        return DAY_S * np.maximum(0, days)


def _days(share: Share) -> int:
    """Whole days for which a device must wait because versions on the way take more than its bytes of one day."""
    if share.bytes_per_day is None:
        return 0
    return max(0, -(-share.transport_bytes // share.bytes_per_day) - 1)


def _busiest_site(shares: Sequence[Share]) -> float:
    """Bytes at the busiest site for each device that is asked anywhere."""
    sizes: Counter[str] = Counter()
    for share in shares:
        if share.site:
            sizes[share.site] += share.transport_bytes
    return max(sizes.values(), default=0) / max(1, len(shares))


def _openings(shares: Sequence[Share], fleet: Fleet, rules: Strategy) -> Floats:
    """Windows of the most common time zone as rows (start, end), in seconds from now; enough of them for any rollout."""
    if rules.window is None or not shares:
        return np.zeros((0, 2))
    zone = Counter(share.zone for share in shares).most_common(1)[0][0]
    return np.array(_opening_times(rules.window.model_dump_json(), zone, fleet.now))


@lru_cache(maxsize=64)
def _opening_times(window: str, zone: str, now: datetime) -> list[tuple[float, float]]:
    rule, at = Window.model_validate_json(window), now
    found: list[tuple[float, float]] = []
    while len(found) < OPENINGS:
        opening = windows.opening(rule, zone, at)
        if opening is None:
            break
        found.append(((opening.start - now).total_seconds(), (opening.end - now).total_seconds()))
        at = max(opening.end, at + timedelta(minutes=1))
    return found
