"""Who gets what, in which wave, and why somebody gets nothing: a pure function the dry run and the start share."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.inventory import selection
from fleet.rollouts.choice import Choice, Offer, Room, choose
from fleet.rollouts.conditions import part_of
from fleet.rollouts.gates import Limits, devices_to_show
from fleet.rollouts.strategy import Strategy

RUNS_IT = "runs this artifact already"
HELD_BACK = "held back: it stays on what it runs, for comparison"

# Artifacts in the order of publication, by slug of target.
Offers = Mapping[str, Sequence[Offer]]
Stratum = tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """One device of the group, as far as planning is concerned."""

    device: str
    target: str
    facts: Mapping[str, str] = field(default_factory=dict)  # what label rules see
    groups: frozenset[str] = frozenset()  # of those that the strategy excludes
    export_only: bool = False
    state: str = "active"
    installed: str = ""  # sha256 of what runs
    version: int = 0  # of this model that runs; 0: none
    room: Room = field(default_factory=Room)
    busy_with: str = ""  # the rollout that is already at work on this app of this device
    busy_priority: int = 0
    asks: bool = False  # the device itself says that a person there is asked
    recalled: str = ""  # why the artifact of its target may not be taken any more

    @property
    def site(self) -> str:
        """Label `site`."""
        return self.facts.get("site", "")

    @property
    def zone(self) -> str:
        """Label `timezone`."""
        return self.facts.get("timezone", "")

    @property
    def bytes_per_day(self) -> int | None:
        """Label `bytes_per_day`."""
        text = self.facts.get("bytes_per_day", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


@dataclass(frozen=True)
class Share:
    """One device's part of the plan."""

    device: str
    target: str
    artifact: int
    transport_bytes: int  # with everything on the way
    site: str = ""
    zone: str = ""
    asks: bool = False  # its owner is asked before it gets anything
    hops: tuple[int, ...] = ()  # artifacts of versions that it must pass through before
    bytes_per_day: int | None = None
    takes_from: str = ""  # the rollout of lower priority that loses it
    why: tuple[dict[str, Any], ...] = ()  # gate by gate
    compares: bool = True  # it runs something that the new artifact can be compared with


@dataclass(frozen=True)
class LeftOut:
    """A device that gets nothing, and why."""

    device: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The waves in order, everyone left out, and what this fleet can show."""

    waves: list[list[Share]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    evidence: str = ""
    held_back: list[str] = field(default_factory=list)
    held_targets: Mapping[str, int] = field(default_factory=dict)  # how many are held back, by target

    @property
    def devices(self) -> int:
        """How many devices take part."""
        return sum(len(wave) for wave in self.waves)

    @property
    def transport_bytes(self) -> int:
        """What goes over the air in all."""
        return sum(share.transport_bytes for share in self.shares)

    @property
    def shares(self) -> list[Share]:
        """Everybody who takes part, in order."""
        return [share for wave in self.waves for share in wave]


def plan(
    candidates: Sequence[Candidate],
    offers: Offers,
    strategy: Strategy,
    seed: str,
    hops: Mapping[int, Offers] | None = None,
) -> Plan:
    """Waves of devices in an order that `seed` fixes, spread over targets; and everyone left out with the reason.

    `hops`: artifacts of the versions that must be passed through, by their number.
    """
    sorting = _Sorting(offers, strategy, hops or {})
    shares, left_out = sorting.out(candidates)
    shares, rest = _some(shares, strategy.who.share, f"{seed}/share")
    reason = f"is not among the {strategy.who.share} that take part"
    left_out += [LeftOut(share.device, reason) for share in rest]
    shares, held = _without_some(shares, strategy.who.hold_back, f"{seed}/hold-back")
    left_out += [LeftOut(share.device, HELD_BACK) for share in held]
    ordered = _spread(shares, seed)
    return Plan(
        _cut(ordered, strategy.waves),
        left_out,
        what_it_can_show(len(ordered), strategy),
        [share.device for share in held],
        Counter(share.target for share in held),
    )


def what_it_can_show(devices: int, strategy: Strategy) -> str:
    """One sentence on which failure rates a fleet of this size can show or exclude."""
    needed = devices_to_show(Limits.of(strategy))
    if devices >= needed:
        return (
            f"{needed} devices without a failure show that fewer than {strategy.p1:.0%} fail; "
            f"this rollout has {devices}."
        )
    going_on = "goes on" if strategy.proceeds_without_evidence(devices) else "asks a person"
    return (
        f"{devices} devices cannot show that fewer than {strategy.p1:.0%} fail ({needed} without a failure could); "
        f"the trial on each device decides, and the rollout {going_on} when a wave ends well."
    )


class _Sorting:
    """Who can take part at all, and with which artifact."""

    def __init__(self, offers: Offers, strategy: Strategy, hops: Mapping[int, Offers]) -> None:
        self.offers, self.strategy, self.hops = offers, strategy, hops
        who = strategy.who
        self.wanted = selection.parse(who.rule) if who.rule else None
        self.unwanted = selection.parse(who.exclude) if who.exclude else None
        self._chosen: dict[tuple[str, int, Room], tuple[Choice, tuple[dict[str, Any], ...]]] = {}

    def out(self, candidates: Sequence[Candidate]) -> tuple[list[Share], list[LeftOut]]:
        """Shares, and everyone left out."""
        shares, left_out = [], []
        for candidate in candidates:
            found = self._share(candidate)
            if isinstance(found, str):
                left_out.append(LeftOut(candidate.device, found))
            else:
                shares.append(found)
        return shares, left_out

    def _share(self, candidate: Candidate) -> Share | str:
        """The device's share, or why it gets nothing."""
        obstacle = self._not_meant(candidate)
        if obstacle:
            return obstacle
        choice, why = self._choice(candidate, self.offers, 0)
        offer = choice.offer
        if offer is None:
            return (candidate.recalled if not self.offers.get(candidate.target) else "") or choice.obstacle
        if candidate.installed == offer.sha256:
            return RUNS_IT
        if self.strategy.trial.shadow and not candidate.installed:
            return "runs nothing that a shadow could run beside"
        if candidate.busy_with and candidate.busy_priority >= self.strategy.priority:
            return f"{candidate.busy_with} is at work on it"
        way = self._way(candidate)
        if isinstance(way, str):
            return way
        return self._checked(candidate, [*way, offer], why)

    def _not_meant(self, candidate: Candidate) -> str:
        if candidate.state != "active":
            return f"is {candidate.state}"
        if self.wanted is not None and not self.wanted.matches(candidate.facts):
            return f"does not match '{self.strategy.who.rule}'"
        if self.unwanted is not None and self.unwanted.matches(candidate.facts):
            return f"is excluded by '{self.strategy.who.exclude}'"
        if candidate.groups:
            return f"is excluded with group '{min(candidate.groups)}'"
        if candidate.export_only:
            return f"{candidate.target} is export only: its artifacts are downloaded, not rolled out"
        return ""

    def _choice(
        self, candidate: Candidate, offers: Offers, version: int
    ) -> tuple[Choice, tuple[dict[str, Any], ...]]:
        # Most devices of a target leave the same room; thousands of them share one choice.
        key = (candidate.target, version, candidate.room)
        if key not in self._chosen:
            made = choose(offers.get(candidate.target, ()), candidate.room, candidate.target)
            self._chosen[key] = made, tuple(made.as_rows())
        return self._chosen[key]

    def _way(self, candidate: Candidate) -> list[Offer] | str:
        """Artifacts of the versions still to pass through, or the one that is missing."""
        way: list[Offer] = []
        for version in self.strategy.who.must_pass_through:
            # A device that runs nothing of this model starts afresh.
            if not candidate.version or candidate.version >= version:
                continue
            choice, _ = self._choice(candidate, self.hops.get(version, {}), version)
            if choice.offer is None:
                return f"must pass through version {version} first, but: {choice.obstacle}"
            way.append(choice.offer)
        return way

    def _checked(
        self, candidate: Candidate, steps: list[Offer], why: tuple[dict[str, Any], ...]
    ) -> Share | str:
        limits = [self.strategy.budgets.device_bytes_per_day, candidate.bytes_per_day]
        budget = min((limit for limit in limits if limit is not None), default=None)
        largest = max(step.transport_bytes for step in steps)
        if budget is not None and largest > budget:
            return f"needs {largest} bytes at once, and its budget is {budget} a day"
        site_budget = self.strategy.budgets.site_bytes_per_day
        if candidate.site and site_budget is not None and largest > site_budget:
            return f"needs {largest} bytes at once, and the budget of site '{candidate.site}' is {site_budget} a day"
        return Share(
            candidate.device,
            candidate.target,
            steps[-1].artifact,
            sum(step.transport_bytes for step in steps),
            site=candidate.site,
            zone=candidate.zone,
            asks=self.strategy.ask_consent and (candidate.asks or candidate.facts.get("consent") == "ask"),
            hops=tuple(step.artifact for step in steps[:-1]),
            bytes_per_day=budget,
            takes_from=candidate.busy_with,
            why=why,
            compares=bool(candidate.installed),
        )


def _some(shares: list[Share], share: str, seed: str) -> tuple[list[Share], list[Share]]:
    """A random part that holds targets and sites in proportion, and the rest; all of them without a share."""
    if not share:
        return shares, []
    ordered = _spread(shares, seed)
    upto = math.ceil(part_of(share) * len(shares) - 1e-9)
    return ordered[:upto], ordered[upto:]


def _without_some(shares: list[Share], share: str, seed: str) -> tuple[list[Share], list[Share]]:
    """Everybody but a random part, and that part; somebody always takes part."""
    held, left = _some(shares, share, seed) if share else ([], shares)
    return (left, held) if left else (held[-1:], held[:-1])


def _spread(shares: Sequence[Share], seed: str) -> list[Share]:
    """Random but repeatable; any first part holds targets in their proportion in the whole, and sites in that of theirs.

    Where a site begins is drawn: many sites of one device each are taken from as often as one site of many.
    """
    mixed = sorted(shares, key=lambda share: _shuffle_key(seed, share.device))
    sited = _interleaved(mixed, _target_and_site, lambda of: chance("\0".join((seed, *of))))
    return _interleaved(sited, lambda share: (share.target,), lambda _: 0.5)


def _interleaved(
    shares: Sequence[Share], stratum: Callable[[Share], Stratum], begins: Callable[[Stratum], float]
) -> list[Share]:
    """Each stratum's devices, in their order, at equal distances over the whole; `begins` says where within the first."""
    size = Counter(map(stratum, shares))
    place: Counter[Stratum] = Counter()
    keyed = []
    for share in shares:
        of = stratum(share)
        keyed.append(((place[of] + begins(of)) / size[of], share))
        place[of] += 1
    return [share for _, share in sorted(keyed, key=lambda entry: entry[0])]


def _target_and_site(share: Share) -> Stratum:
    return share.target, share.site


def chance(of: str) -> float:
    """A number from 0 to 1 that comes out the same whenever it is drawn."""
    return int.from_bytes(hashlib.sha256(of.encode()).digest()[:8]) / 2**64


def _shuffle_key(seed: str, device: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{device}".encode()).digest()


def _cut(ordered: Sequence[Share], sizes: Sequence[int | str]) -> list[list[Share]]:
    """Waves by cumulative size; what the sizes leave over makes a last wave, and empty waves vanish."""
    waves, done = [], 0
    for size in (*sizes, "100%"):
        upto = min(max(_count(size, len(ordered)), done), len(ordered))
        if upto > done:
            waves.append(list(ordered[done:upto]))
        done = upto
    return waves


def _count(size: int | str, total: int) -> int:
    if isinstance(size, int):
        return size
    return math.ceil(float(size[:-1]) * total / 100 - 1e-9)
