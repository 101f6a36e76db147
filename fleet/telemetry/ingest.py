"""Reports into rows: in batches, each once however often it arrives, with device time mapped to UTC."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from device_agent.core import histogram, protocol
from fleet import events
from fleet.inventory import sightings
from fleet.inventory.models import Device
from fleet.registry.models import Artifact
from fleet.telemetry.models import Report

BATCH = 500
MAX_COUNT = 2**53
MAX_CLASSES = 40
MAX_BINS = 64
LONGEST_WINDOW = timedelta(days=2)
# A device clock further ahead than this is wrong, whatever the device says.
AHEAD = timedelta(minutes=5)
OLDEST = timedelta(days=400)


@dataclass(frozen=True)
class Arrival:
    """One checked report of one device and when it came in."""

    device: Device
    message: dict[str, Any]
    at: datetime


def store(arrivals: Sequence[Arrival]) -> int:
    """Insert what is new and note the signs of life; returns how many reports counted."""
    counted = [arrival for arrival in arrivals if sightings.hear(arrival.device, arrival.message["epoch"])]
    if not counted:
        return 0
    artifacts = _artifacts(counted)
    rows = [_row(arrival, artifacts) for arrival in counted]
    Report.objects.bulk_create(rows, batch_size=BATCH, ignore_conflicts=True)
    sightings.seen({arrival.device.pk for arrival in counted}, max(arrival.at for arrival in counted))
    events.publish(*{f"device:{arrival.device.name}" for arrival in counted}, "overview", "telemetry")
    return len(rows)


def check(message: dict[str, Any]) -> None:
    """Raise ProtocolError for what the protocol's own check leaves open and rows could not hold."""
    histogram.from_wire(message.get("latency") or [])
    for field in ("n", "errors", "labelled", "correct", "dropped", "heap_free_min"):
        value = message.get(field)
        if value is not None and not _is_count(value):
            raise protocol.ProtocolError(f"{field} is no count")
    classes, confidence = message.get("classes") or {}, message.get("confidence") or []
    if not (
        isinstance(classes, dict) and len(classes) <= MAX_CLASSES and all(map(_is_count, classes.values()))
    ):
        raise protocol.ProtocolError(f"classes is not a count for each of at most {MAX_CLASSES} names")
    if not (isinstance(confidence, list) and len(confidence) <= MAX_BINS and all(map(_is_count, confidence))):
        raise protocol.ProtocolError(f"confidence is not a list of at most {MAX_BINS} counts")
    for field in ("sum_abs_err", "sum_sq_err"):
        if not isinstance(message.get(field, 0.0), int | float | None):
            raise protocol.ProtocolError(f"{field} is no number")
    if not isinstance(message.get("scores") or {}, dict):
        raise protocol.ProtocolError("scores is no object")


def span(arrival: Arrival) -> tuple[datetime, datetime]:
    """Start and end of a report in UTC: from the device's clock, else from its boot, else from the arrival."""
    message, device = arrival.message, arrival.device
    length = min(timedelta(milliseconds=min(message["end_ms"] - message["start_ms"], 2**40)), LONGEST_WINDOW)
    end = _end(message, device, arrival.at)
    return end - length, end


def _end(message: dict[str, Any], device: Device, arrived: datetime) -> datetime:
    utc = message.get("utc")
    if isinstance(utc, int | float) and _is_sensible(utc, arrived):
        return datetime.fromtimestamp(utc, tz=UTC)
    if device.booted_at is None:
        return arrived
    if message["boot"] == device.boot:
        since_boot = timedelta(milliseconds=min(message["end_ms"], 2**45))
        return min(device.booted_at + since_boot, arrived)
    # Of an earlier boot only this is known: it was over before this one began.
    return min(device.booted_at, arrived) if message["boot"] < device.boot else arrived


def _is_sensible(utc: float, arrived: datetime) -> bool:
    return (arrived - OLDEST).timestamp() < utc < (arrived + AHEAD).timestamp()


def _artifacts(arrivals: Iterable[Arrival]) -> dict[tuple[str, int], int]:
    """Artifact by bytes and target; of several versions with the same bytes the newest."""
    wanted = {arrival.message["artifact"] for arrival in arrivals}
    found = Artifact.objects.filter(sha256__in=wanted).order_by("created_at", "pk")
    return {(sha256, target): pk for sha256, target, pk in found.values_list("sha256", "target_id", "pk")}


def _row(arrival: Arrival, artifacts: dict[tuple[str, int], int]) -> Report:
    message, device = arrival.message, arrival.device
    start, end = span(arrival)
    return Report(
        device=device,
        epoch=message["epoch"],
        boot=message["boot"],
        sequence=message["sequence"],
        app=message["app"],
        artifact_id=artifacts.get((message["artifact"], device.target_id)),
        artifact_sha256=message["artifact"],
        slot=str(message.get("slot") or "")[:1],
        phase=message["phase"],
        start_at=start,
        end_at=end,
        n=message["n"],
        errors=message["errors"],
        latency=message.get("latency") or [],
        labelled=message.get("labelled") or 0,
        correct=message.get("correct") or 0,
        sum_abs_err=message.get("sum_abs_err"),
        sum_sq_err=message.get("sum_sq_err"),
        scores=message.get("scores") or {},
        classes=message.get("classes") or {},
        confidence=message.get("confidence") or [],
        heap_free_min=message.get("heap_free_min"),
        dropped=message.get("dropped") or 0,
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT
