"""What is measured on a device beside whether its delivery failed: one number a device, from -1 to 1, positive is worse."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np


@dataclass(frozen=True)
class Signal:
    """One kind of measured difference."""

    name: str
    worse: str  # finishes "on average ..."
    stops: bool  # whether it may roll back; otherwise it asks a person
    labelled: bool = False  # whether it exists only where truth is reported
    scale: float = 1.0  # what a person reads is the number times this


_OWN: Final = (
    Signal("accuracy_floor", "labelled accuracy lies below what the test rows promised", True, labelled=True),
    Signal("accuracy", "labelled accuracy fell", True, labelled=True),
    Signal("latency", "inferences take longer", True),
    Signal("errors", "a larger share of inferences fails", True),
    Signal("heap", "the least free heap shrank", True),
    Signal("confidence", "the model is less sure of its answers", False),
    Signal("class_mix", "the mix of answers changed", False),
    Signal("disagreement", "answers differ from those of the version in use", False),
)
# What may change on devices that stay on the old version as well.
PAIRED: Final = ("accuracy", "latency", "errors", "heap", "confidence", "class_mix")


def held_back_name(name: str) -> str:
    """The signal that compares with the devices held back."""
    return f"{name}_held_back"


_AGAINST: Final = tuple(
    replace(s, name=held_back_name(s.name), worse=f"{s.worse} more than on devices held back", scale=2.0)
    for s in _OWN
    if s.name in PAIRED
)
SIGNALS: Final = (*_OWN, *_AGAINST)
BY_NAME: Final = {signal.name: signal for signal in SIGNALS}


@dataclass(frozen=True)
class Measure:
    """A device's number for one signal, and how low it could have been at all."""

    value: float
    lowest: float = -1.0


def below_floor(accuracy: float, floor: float) -> Measure:
    """How far a device's accuracy lies below the floor; known to be `floor - 1` at least, which makes bets bolder."""
    floor = min(max(floor, 0.001), 0.999)
    return Measure(floor - accuracy, floor - 1)


def fall(before: float, after: float) -> Measure:
    """By how much a share fell."""
    return Measure(clip(before - after))


def rise(before: float, after: float) -> Measure:
    """By how much a number rose, relative to what it was; twice as much or more is 1."""
    return Measure(clip(after / before - 1) if before > 0 else 0.0)


def mix_change(before: dict[str, int], after: dict[str, int]) -> Measure | None:
    """Total variation distance of two mixes of answers, less what chance alone makes of samples this small."""
    n_before, n_after = sum(before.values()), sum(after.values())
    if not n_before or not n_after:
        return None
    classes = {*before, *after}
    distance = sum(abs(before.get(c, 0) / n_before - after.get(c, 0) / n_after) for c in classes) / 2
    chance = 0.5 * sum(np.sqrt((len(classes) - 1) / n) for n in (n_before, n_after))
    return Measure(clip(distance - chance))


def mean_confidence(histogram: list[int]) -> float | None:
    """Mean of a histogram over [0, 1] in bins of one width."""
    n = sum(histogram)
    if not n:
        return None
    return sum(count * (at + 0.5) / len(histogram) for at, count in enumerate(histogram)) / n


def against_hold_back(new: list[float], held_back: list[float]) -> list[float]:
    """Each new device's difference less that of a held-back one, halved to stay within [-1, 1].

    A held-back device is used once, with the mean of its share of the new ones, so that its own noise counts once as well.
    """
    if not new or not held_back:
        return []
    blocks = np.array_split(np.array(new), min(len(held_back), len(new)))
    return [(float(block.mean()) - held) / 2 for block, held in zip(blocks, held_back, strict=False)]


def held_back_due(unused: int, fresh: int, left: int) -> int:
    """How many held-back devices are compared now: as large a share as `fresh` is of all that are still to come."""
    return -(-unused * fresh // (fresh + left)) if fresh else 0


def clip(value: float) -> float:
    """Into [-1, 1]; what cannot be compared counts as no difference."""
    return max(-1.0, min(1.0, float(value))) if np.isfinite(value) else 0.0
