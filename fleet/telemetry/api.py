"""REST: latency over time, summaries, reports of a device, alerts."""

from datetime import datetime
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from ninja.pagination import paginate
from pydantic import AwareDatetime

from fleet.inventory import services as inventory
from fleet.telemetry import services, summaries
from fleet.telemetry.models import Alert, Report, Rollup

router = Router(tags=["telemetry"])


class ScopeIn(Schema):
    """Which windows count."""

    device: str = ""
    group: str = ""
    artifact: int | None = None
    app: str = ""
    since: Annotated[AwareDatetime | None, Field(alias="from", description="UTC, as 2026-11-21T12:00Z.")] = (
        None
    )
    until: Annotated[AwareDatetime | None, Field(alias="to", description="UTC, as 2026-11-21T13:00Z.")] = None


class LatencyOut(Schema):
    """Percentiles in microseconds."""

    n: int
    p50_us: int | None
    p90_us: int | None
    p95_us: int | None
    p99_us: int | None


class AccuracyOut(Schema):
    """Share of right answers with its Wilson 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class SummaryOut(Schema):
    """Everything about one selection."""

    n: int
    errors: int
    labelled: int
    correct: int
    dropped: int
    devices: int
    latency: LatencyOut
    accuracy: AccuracyOut | None
    mean_abs_err: float | None
    root_mean_sq_err: float | None
    classes: dict[str, int]
    confidence: list[int]
    heap_free_min: int | None
    first_at: datetime | None
    last_at: datetime | None


class PointOut(Schema):
    """One minute or hour."""

    at: datetime
    n: int
    errors: int
    latency: LatencyOut
    accuracy: AccuracyOut | None


class ReportOut(Schema):
    """One window of a device."""

    epoch: int
    boot: int
    sequence: int
    app: str
    artifact: Annotated[int | None, Field(alias="artifact_id")]
    artifact_sha256: str
    slot: str
    phase: str
    start_at: datetime
    end_at: datetime
    received_at: datetime
    n: int
    errors: int
    latency: list[list[int]]
    labelled: int
    correct: int
    sum_abs_err: float | None
    sum_sq_err: float | None
    classes: dict[str, int]
    confidence: list[int]
    heap_free_min: int | None
    dropped: int


class AlertOut(Schema):
    """Something a person should look at."""

    id: int
    kind: str
    device: str | None
    artifact: Annotated[int | None, Field(alias="artifact_id")]
    sentence: str
    evidence: dict[str, Any]
    raised_at: datetime
    closed_at: datetime | None

    @staticmethod
    def resolve_device(alert: Alert) -> str | None:
        """Name of the device it is about."""
        return alert.device.name if alert.device else None


@router.get("/telemetry/latency", response=list[PointOut])
def latency(
    request: HttpRequest,
    scope: Annotated[ScopeIn, Query()],
    bucket: Rollup.Resolution = Rollup.Resolution.MINUTE,
) -> list[dict[str, Any]]:
    """Latency and accuracy by minute or hour."""
    found = summaries.series(services.scope_of(**scope.model_dump()), bucket)
    return [
        {
            "at": point.at,
            "n": point.summary.n,
            "errors": point.summary.errors,
            "latency": point.summary.latency,
            "accuracy": point.summary.accuracy,
        }
        for point in found
    ]


@router.get("/telemetry/summary", response=SummaryOut)
def summary(request: HttpRequest, scope: Annotated[ScopeIn, Query()]) -> summaries.Summary:
    """One summary of everything that was asked for."""
    return summaries.summarise(services.scope_of(**scope.model_dump()))


@router.get("/devices/{name}/reports", response=list[ReportOut])
@paginate
def reports(request: HttpRequest, name: str, app: str = "") -> QuerySet[Report]:
    """Reports of a device, newest first."""
    found = Report.objects.filter(device=inventory.device_named(name))
    return found.filter(app=app) if app else found


@router.get("/alerts", response=list[AlertOut])
@paginate
def list_alerts(request: HttpRequest, closed: bool = False) -> QuerySet[Alert]:
    """Open alerts, or those that are over."""
    return Alert.objects.filter(closed_at__isnull=not closed).select_related("device")
