"""Telemetry: latency and labelled accuracy over time, and by device."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from fleet.dashboard import field, spreadsheet
from fleet.dashboard.access import asked, page
from fleet.inventory.models import Device, DeviceGroup
from fleet.telemetry import services, summaries
from fleet.telemetry.models import Alert, Report

SHOWN_DEVICES = 200


@page()
def show(request: HttpRequest) -> HttpResponse:
    """The charts of what the filter selects; the same values as CSV."""
    span = field.span_named(request.GET.get("span", ""), timezone.now())
    artifact = asked(request, "artifact")
    scope = services.scope_of(
        device=asked(request, "device"),
        group=asked(request, "group"),
        artifact=int(artifact)
        if artifact.isascii() and artifact.isdecimal() and len(artifact) < 16
        else None,
        since=span.since,
    )
    charts = field.charts_of(scope, span, field.rollout_markers(scope, span))
    wanted = charts.get(request.GET.get("csv", ""))
    if wanted:
        return spreadsheet.answer(
            [wanted.table.columns, *wanted.table.rows], f"telemetry-{request.GET['csv']}"
        )
    context = {
        "section": "telemetry",
        "charts": charts,
        "span": span,
        "spans": field.SPANS,
        "summary": summaries.summarise(scope),
        "rows": _by_device(scope),
        "artifact": scope.artifact,
        "artifacts": field.reported_artifacts(),
        "groups": DeviceGroup.objects.all(),
        "alerts": Alert.objects.filter(closed_at=None).select_related("device")[:20],
        "any": Report.objects.exists() or bool(field.reported_artifacts()),
    }
    return render(request, "dashboard/pages/telemetry.html", context)


def _by_device(scope: summaries.Scope) -> list[tuple[Device, summaries.Summary]]:
    found = summaries.by_device(scope)
    devices = Device.objects.filter(pk__in=found).select_related("target").order_by("name")[:SHOWN_DEVICES]
    return [(device, found[device.pk]) for device in devices]
