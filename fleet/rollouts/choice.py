"""Which of several artifacts a device gets: one gate after the other, each with its sentence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Offer:
    """One artifact of the version, as far as choosing is concerned; what was not measured is None."""

    artifact: int
    sha256: str
    bytes: int
    transport_bytes: int  # all that is read over the air to install it
    peak_ram_bytes: int | None = None
    latency_us: int | None = None  # expected on the target, from the field or estimated
    accuracy: float | None = None


@dataclass(frozen=True)
class Room:
    """What a device leaves an artifact; None is not known and forbids nothing."""

    ram_bytes: int | None = None
    latency_us: int | None = None


@dataclass(frozen=True)
class Gate:
    """One gate: how many artifacts were left after it, and why."""

    gate: str
    left: int
    sentence: str


@dataclass(frozen=True)
class Choice:
    """The artifact, or None; the last gate says why."""

    offer: Offer | None
    gates: list[Gate] = field(default_factory=list)

    @property
    def obstacle(self) -> str:
        """Why no artifact is left."""
        return "" if self.offer else self.gates[-1].sentence

    def as_rows(self) -> list[dict[str, Any]]:
        """JSON form."""
        return [asdict(gate) for gate in self.gates]


def choose(offers: Sequence[Offer], room: Room, target: str) -> Choice:
    """The most accurate of those that fit memory and latency; among equals the smaller, then the newer.

    `offers` are in the order in which they were published.
    """
    gates = [Gate("target", len(offers), f"{_count(len(offers))} of this version for {target}")]
    if not offers:
        return Choice(None, [Gate("target", 0, f"no artifact of this version for {target}")])
    left = list(offers)
    for gate in (_memory, _latency):
        kept, sentence = gate(left, room)
        gates.append(Gate(gate.__name__.strip("_"), len(kept), sentence))
        if not kept:
            return Choice(None, gates)
        left = kept
    best = max(
        enumerate(left), key=lambda entry: (_accuracy_of(entry[1]), -entry[1].transport_bytes, entry[0])
    )
    gates.append(Gate("accuracy", 1, _why_best(best[1], left)))
    return Choice(best[1], gates)


def _memory(offers: list[Offer], room: Room) -> tuple[list[Offer], str]:
    if room.ram_bytes is None:
        return offers, "the device has not said how much memory is free"
    fit = [o for o in offers if o.peak_ram_bytes is None or o.peak_ram_bytes <= room.ram_bytes]
    if fit:
        needs = ", ".join(_size(o.peak_ram_bytes) for o in fit)
        return fit, f"{_size(room.ram_bytes)} of memory are free on the device; needed: {needs}"
    least = min(o.peak_ram_bytes or 0 for o in offers)
    return [], f"needs {_size(least)} of memory, and {_size(room.ram_bytes)} are free on the device"


def _latency(offers: list[Offer], room: Room) -> tuple[list[Offer], str]:
    if room.latency_us is None:
        return offers, "the target has no latency budget"
    fit = [o for o in offers if o.latency_us is None or o.latency_us <= room.latency_us]
    if fit:
        return fit, f"{_count(len(fit))} within the budget of {room.latency_us} us, or not measured yet"
    least = min(o.latency_us or 0 for o in offers)
    return [], f"takes {least} us an inference, and the budget of the target is {room.latency_us} us"


def _why_best(best: Offer, left: Sequence[Offer]) -> str:
    if len(left) == 1:
        return f"artifact {best.artifact} is the only one left"
    if best.accuracy is None:
        return f"artifact {best.artifact} is the smallest of {len(left)}; no accuracy was measured"
    same = sum(_accuracy_of(o) == best.accuracy for o in left) > 1
    than = "as accurate as others and smaller or newer" if same else f"the most accurate of {len(left)}"
    return f"artifact {best.artifact} is {than}: {best.accuracy:.1%} on test rows"


def _accuracy_of(offer: Offer) -> float:
    return -1.0 if offer.accuracy is None else offer.accuracy


def _count(n: int) -> str:
    return f"{n} artifact{'' if n == 1 else 's'}"


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.0f} kB"
