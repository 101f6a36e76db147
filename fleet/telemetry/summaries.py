"""Figures for people and gates: percentiles from merged histograms, labelled accuracy with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from fleet.inventory.models import Device
from fleet.registry.models import Artifact
from fleet.telemetry.merging import latency_of, merge_counts
from fleet.telemetry.models import Report, Rollup
from fleet.telemetry.rollups import bucket_start

Z95 = 1.959964
MAX_POINTS = 2000
MINUTES_UPTO = timedelta(days=2)
RECENT_WINDOWS = 200


@dataclass(frozen=True)
class Latency:
    """Percentiles in microseconds of `n` inferences; at most 3.2 % off."""

    n: int
    p50_us: int | None
    p90_us: int | None
    p95_us: int | None
    p99_us: int | None


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers among `n` labelled ones, with the Wilson 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Summary:
    """Everything about one selection of devices, artifacts and time."""

    n: int
    errors: int
    labelled: int
    correct: int
    dropped: int
    devices: int
    latency: Latency
    accuracy: Accuracy | None
    mean_abs_err: float | None
    root_mean_sq_err: float | None
    classes: dict[str, int]
    confidence: list[int]
    heap_free_min: int | None
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True)
class Point:
    """One bucket of a series."""

    at: datetime
    summary: Summary


@dataclass(frozen=True)
class Scope:
    """Which windows count; what is left out does not narrow."""

    devices: Sequence[Device] | None = None
    artifact: Artifact | None = None
    app: str = ""
    phases: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def query(self, time_field: str) -> Q:
        """The filter of reports or rollups, by their own time field."""
        query = Q()
        if self.devices is not None:
            query &= Q(device__in=[device.pk for device in self.devices])
        if self.artifact is not None:
            # The same bytes may be published for several targets; the device tells which was meant.
            query &= Q(artifact_sha256=self.artifact.sha256, device__target=self.artifact.target_id)
        if self.app:
            query &= Q(app=self.app)
        if self.phases:
            query &= Q(phase__in=list(self.phases))
        if self.since is not None:
            query &= Q(**{f"{time_field}__gte": self.since})
        if self.until is not None:
            query &= Q(**{f"{time_field}__lt": self.until})
        return query


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); (0, 1) when nothing was seen."""
    if n == 0:
        return 0.0, 1.0
    share, square = correct / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    # At the ends rounding would leave the exact 0 or 1 by a hair.
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == n else min(1.0, middle + half)
    return low, high


def accuracy_of(correct: int, labelled: int) -> Accuracy | None:
    """Accuracy with its interval; None without labels."""
    if labelled == 0:
        return None
    low, high = wilson(correct, labelled)
    return Accuracy(correct / labelled, low, high, labelled)


def summarise(scope: Scope) -> Summary:
    """One summary of everything in scope; its ends are exact to the minute, or to the hour beyond two days."""
    return _summary([*_rollups(scope, _fitting(scope)), *_fresh(scope)])


def recent_latency(artifact: Artifact, windows: int = RECENT_WINDOWS) -> Latency:
    """Of an artifact on its target, from the newest rollups only: as cheap for ten thousand devices as for ten."""
    found = Rollup.objects.filter(Scope(artifact=artifact).query("start_at"))
    return _summary(list(found.exclude(phase="shadow").order_by("-start_at")[:windows])).latency


def by_device(scope: Scope) -> dict[int, Summary]:
    """A summary a device."""
    found: dict[int, list[Any]] = {}
    windows: list[Rollup | Report] = [*_rollups(scope, _fitting(scope)), *_fresh(scope)]
    for window in windows:
        found.setdefault(window.device_id, []).append(window)
    return {device: _summary(windows) for device, windows in found.items()}


def series(scope: Scope, resolution: str) -> list[Point]:
    """A summary a minute or hour, in order; buckets without reports are left out."""
    buckets: dict[datetime, list[Any]] = {}
    for rollup in _rollups(scope, resolution):
        buckets.setdefault(rollup.start_at, []).append(rollup)
    for report in _fresh(scope):
        buckets.setdefault(bucket_start(report.end_at, resolution), []).append(report)
    return [Point(at, _summary(buckets[at])) for at in sorted(buckets)[-MAX_POINTS:]]


def _fitting(scope: Scope) -> str:
    short = scope.since is not None and (scope.until or timezone.now()) - scope.since <= MINUTES_UPTO
    return Rollup.Resolution.MINUTE if short else Rollup.Resolution.HOUR


def _rollups(scope: Scope, resolution: str) -> list[Rollup]:
    if scope.since is not None:
        scope = replace(scope, since=bucket_start(scope.since, resolution))
    return list(Rollup.objects.filter(scope.query("start_at"), resolution=resolution))


def _fresh(scope: Scope) -> list[Report]:
    """Reports that no rollup holds yet, so that a page never lags behind."""
    return list(Report.objects.filter(scope.query("end_at"), rolled_up=False))


def _summary(windows: Sequence[Any]) -> Summary:
    total = Report()
    for window in windows:
        merge_counts(total, window)
    latency = latency_of(window.latency for window in windows)
    times = [window.end_at if isinstance(window, Report) else window.start_at for window in windows]
    labelled = total.labelled
    return Summary(
        n=total.n,
        errors=total.errors,
        labelled=labelled,
        correct=total.correct,
        dropped=total.dropped,
        devices=len({window.device_id for window in windows}),
        latency=Latency(latency.count, *(latency.percentile(q) for q in (0.5, 0.9, 0.95, 0.99))),
        accuracy=None if total.sum_abs_err is not None else accuracy_of(total.correct, labelled),
        mean_abs_err=total.sum_abs_err / labelled if total.sum_abs_err is not None and labelled else None,
        root_mean_sq_err=_root(total.sum_sq_err, labelled),
        classes=total.classes,
        confidence=total.confidence,
        heap_free_min=total.heap_free_min,
        first_at=min(times, default=None),
        last_at=max(times, default=None),
    )


def _root(sum_sq: float | None, n: int) -> float | None:
    return math.sqrt(max(sum_sq, 0.0) / n) if sum_sq is not None and n else None
