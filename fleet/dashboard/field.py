"""What devices reported, over a span of time: the points of the charts with their gaps, and the markers beside them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from django.db.models import Q

from fleet.dashboard.charts import AccuracyPoint, Chart, LatencyPoint, Marker, accuracy, latency
from fleet.inventory.models import Device
from fleet.registry.models import Artifact
from fleet.rollouts.models import Delivery, Rollout
from fleet.telemetry import summaries
from fleet.telemetry.models import Rollup

SPANS = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "2d": timedelta(days=2),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
DEFAULT_SPAN = "1h"
MINUTES_UPTO = timedelta(hours=6)
MAX_MARKERS = 12


@dataclass(frozen=True)
class Span:
    """A span of time that ends now, and the width of its buckets."""

    name: str
    since: datetime
    resolution: str
    step: timedelta


def span_named(name: str, now: datetime) -> Span:
    """The span of that name; unknown names mean the default."""
    name = name if name in SPANS else DEFAULT_SPAN
    minutes = SPANS[name] <= MINUTES_UPTO
    return Span(
        name,
        now - SPANS[name],
        Rollup.Resolution.MINUTE if minutes else Rollup.Resolution.HOUR,
        timedelta(minutes=1) if minutes else timedelta(hours=1),
    )


def charts_of(scope: summaries.Scope, span: Span, markers: Sequence[Marker]) -> dict[str, Chart]:
    """Latency and accuracy over the span."""
    points = summaries.series(replace(scope, since=span.since), span.resolution)
    floor = scope.artifact.accuracy_floor if scope.artifact else None
    return {
        "latency": latency(with_gaps([_latency(p) for p in points], span.step), markers),
        "accuracy": accuracy(with_gaps([_accuracy(p) for p in points], span.step), floor, markers),
    }


def _latency(point: summaries.Point) -> LatencyPoint:
    found = point.summary.latency
    return LatencyPoint(point.at, found.n, found.p50_us, found.p95_us, found.p99_us)


def _accuracy(point: summaries.Point) -> AccuracyPoint:
    found = point.summary.accuracy
    if found is None:
        return AccuracyPoint(point.at, 0, None, None, None)
    return AccuracyPoint(point.at, found.n, found.value, found.low, found.high)


P = TypeVar("P", LatencyPoint, AccuracyPoint)


def with_gaps(points: Iterable[P], step: timedelta) -> list[P]:
    """The points with an empty one where buckets are missing, so that the line breaks there."""
    found: list[P] = []
    for point in points:
        if found and point.at - found[-1].at > 1.5 * step:
            found.append(replace(found[-1], at=found[-1].at + step, n=0))
        found.append(point)
    return found


def rollout_markers(scope: summaries.Scope, span: Span) -> list[Marker]:
    """When rollouts started or went back within the span."""
    wanted = Rollout.objects.filter(Q(started_at__gte=span.since) | Q(finished_at__gte=span.since))
    if scope.artifact:
        wanted = wanted.filter(version=scope.artifact.version_id)
    if scope.devices is not None:
        wanted = wanted.filter(deliveries__device__in=[device.pk for device in scope.devices]).distinct()
    markers = []
    for rollout in wanted.select_related("version__model")[:MAX_MARKERS]:
        if rollout.started_at and rollout.started_at >= span.since:
            markers.append(Marker(rollout.started_at, f"{rollout.version} out"))
        if rollout.state == Rollout.State.ROLLED_BACK and rollout.finished_at:
            markers.append(Marker(rollout.finished_at, f"{rollout.version} back"))
    return sorted(markers, key=lambda marker: marker.at)


def delivery_markers(device: Device, span: Span) -> list[Marker]:
    """When deliveries of one device ended within the span."""
    ended = Delivery.objects.filter(device=device, finished_at__gte=span.since, artifact__isnull=False)
    return [
        Marker(delivery.finished_at, f"{delivery.artifact.version} {delivery.state.replace('_', ' ')}")
        for delivery in ended.select_related("artifact__version__model").order_by("finished_at")[:MAX_MARKERS]
        if delivery.finished_at and delivery.artifact
    ]


def reported_artifacts() -> list[Artifact]:
    """Artifacts that devices have reported on, newest first."""
    seen = Rollup.objects.exclude(artifact=None).values("artifact")
    return list(Artifact.objects.filter(pk__in=seen).select_related("version__model", "target")[:100])
