"""Who gets what, in which wave, and why somebody gets nothing: a pure function the dry run and the start share."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.rollouts.gates import Limits, devices_to_show
from fleet.rollouts.strategy import Strategy


@dataclass(frozen=True)
class Candidate:
    """One device of the group, as far as planning is concerned."""

    device: str
    target: str
    runtime: str = ""
    export_only: bool = False
    state: str = "active"
    installed: str = ""  # sha256 of what runs
    busy_with: str = ""  # the rollout that is already at work on this app of this device
    recalled: str = ""  # why the artifact of its target may not be taken any more


@dataclass(frozen=True)
class Offer:
    """The artifact that one target gets."""

    artifact: int
    sha256: str
    bytes: int
    transport_bytes: int


@dataclass(frozen=True)
class Share:
    """One device's part of the plan."""

    device: str
    target: str
    artifact: int
    transport_bytes: int


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

    @property
    def devices(self) -> int:
        """How many devices take part."""
        return sum(len(wave) for wave in self.waves)

    @property
    def transport_bytes(self) -> int:
        """What goes over the air in all."""
        return sum(share.transport_bytes for wave in self.waves for share in wave)


def plan(candidates: Sequence[Candidate], offers: Mapping[str, Offer], strategy: Strategy, seed: str) -> Plan:
    """Waves of devices in an order that `seed` fixes, spread over targets; and everyone left out with the reason."""
    shares, left_out = [], []
    for candidate in candidates:
        reason = _obstacle(candidate, offers)
        if reason:
            left_out.append(LeftOut(candidate.device, reason))
        else:
            offer = offers[candidate.target]
            shares.append(Share(candidate.device, candidate.target, offer.artifact, offer.transport_bytes))
    ordered = _spread(shares, seed)
    return Plan(_cut(ordered, strategy.waves), left_out, what_it_can_show(len(ordered), strategy))


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


def _obstacle(candidate: Candidate, offers: Mapping[str, Offer]) -> str:
    if candidate.state != "active":
        return f"is {candidate.state}"
    if candidate.export_only:
        return f"{candidate.target} is export only: its artifacts are downloaded, not rolled out"
    offer = offers.get(candidate.target)
    if offer is None:
        return candidate.recalled or f"no artifact of this version for {candidate.target}"
    if candidate.installed == offer.sha256:
        return "runs this artifact already"
    if candidate.busy_with:
        return f"{candidate.busy_with} is at work on it"
    return ""


def _spread(shares: Sequence[Share], seed: str) -> list[Share]:
    """Random but repeatable, and every prefix holds the targets in about their proportion in the whole."""
    size = Counter(share.target for share in shares)
    place: Counter[str] = Counter()
    keyed = []
    for share in sorted(shares, key=lambda share: _shuffle_key(seed, share.device)):
        place[share.target] += 1
        keyed.append(((place[share.target] - 0.5) / size[share.target], share.target, share))
    return [share for _, _, share in sorted(keyed, key=lambda entry: entry[:2])]


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
