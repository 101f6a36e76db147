"""Windows merge into one another without loss: counts add, histograms add bucket by bucket."""

from collections.abc import Iterable
from typing import Any

from device_agent.core.histogram import Histogram, from_wire
from device_agent.core.protocol import ProtocolError
from fleet.telemetry.models import Window

MAX_CLASSES = 64
OTHER = "other"

_ADDED = ("n", "errors", "labelled", "correct", "dropped")
_ADDED_OR_NONE = ("sum_abs_err", "sum_sq_err")


def merge(into: Window, window: Window) -> None:
    """Add one window to another."""
    merge_counts(into, window)
    into.latency = latency_of([into.latency, window.latency]).to_wire()


def merge_counts(into: Window, window: Window) -> None:
    """Add everything but latency, which is cheaper to merge once for many windows."""
    for field in _ADDED:
        setattr(into, field, getattr(into, field) + getattr(window, field))
    for field in _ADDED_OR_NONE:
        setattr(into, field, _sum(getattr(into, field), getattr(window, field)))
    into.classes = _classes(into.classes, window.classes)
    into.confidence = _bins(into.confidence, window.confidence)
    into.heap_free_min = _least(into.heap_free_min, window.heap_free_min)


def latency_of(wires: Iterable[Any]) -> Histogram:
    """One histogram of many in their sparse form; one that cannot be read counts nothing."""
    merged = Histogram()
    for wire in wires:
        if wire:
            try:
                merged.merge(_read(wire))
            except ProtocolError:
                continue
    return merged


def _read(wire: Any) -> Histogram:
    # Merged counts may exceed what one report may claim, so they are read without its limit.
    try:
        return from_wire(wire)
    except ProtocolError:
        found = Histogram()
        for bucket, count in wire:
            found.counts[int(bucket)] = int(count)
            found.count += int(count)
        return found


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None and b is None else (a or 0.0) + (b or 0.0)


def _least(a: int | None, b: int | None) -> int | None:
    known = [value for value in (a, b) if value is not None]
    return min(known) if known else None


def _classes(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    """Counts by class; the rarest beyond 64 names count as `other`."""
    total = dict(a)
    for name, count in b.items():
        total[name] = total.get(name, 0) + count
    if len(total) <= MAX_CLASSES:
        return total
    names = sorted((name for name in total if name != OTHER), key=lambda name: -total[name])
    kept = {name: total[name] for name in names[: MAX_CLASSES - 1]}
    kept[OTHER] = sum(total.values()) - sum(kept.values())
    return kept


def _bins(a: list[int], b: list[int]) -> list[int]:
    width = max(len(a), len(b))
    return [sum(bins[i] for bins in (a, b) if i < len(bins)) for i in range(width)]
