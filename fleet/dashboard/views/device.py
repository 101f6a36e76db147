"""One device: what it runs, what happened to it, how it performs, and what may be asked of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.dashboard import field, spreadsheet
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.forms.device import CommandForm, DeviceForm, labels_text
from fleet.dashboard.words import label
from fleet.inventory import services
from fleet.inventory.models import Device
from fleet.rollouts.models import Delivery
from fleet.telemetry.summaries import Scope, summarise

MAX_EVENTS = 40


@dataclass(frozen=True)
class Happening:
    """One entry of a device's timeline."""

    at: datetime
    state: str
    title: str
    note: str = ""
    rollout: int | None = None
    why: Sequence[dict[str, Any]] = ()
    key: str = ""


@page()
def show(request: HttpRequest, name: str) -> HttpResponse:
    """The page; `?csv=latency` gives the values of a chart."""
    device = services.device_named(name)
    now = timezone.now()
    span = field.span_named(request.GET.get("span", ""), now)
    charts = field.charts_of(Scope(devices=[device]), span, field.delivery_markers(device, span))
    wanted = charts.get(request.GET.get("csv", ""))
    if wanted:
        return spreadsheet.answer([wanted.table.columns, *wanted.table.rows], f"{name}-{request.GET['csv']}")
    context = {
        "section": "devices",
        "device": device,
        "presence": device.presence_text(now),
        "apps": device.apps.select_related("artifact__version__model"),
        "groups": services.groups_of(device),
        "charts": charts,
        "span": span,
        "spans": field.SPANS,
        "summary": summarise(Scope(devices=[device], since=span.since)),
        "timeline": timeline(device),
        "commands": device.commands.select_related("created_by")[:10],
        "alerts": device.alerts.filter(closed_at=None),
        "hello": hello_facts(device),
        "command_form": CommandForm(),
    }
    return render(request, "dashboard/pages/device.html", context)


def hello_facts(device: Device) -> list[tuple[str, Any]]:
    """What the device said of itself, as words and plain values."""
    names = ("board", "runtime", "agent", "heap_free", "flash_free", "flash_writes", "boot", "clock")
    return [(name, device.hello[name]) for name in names if device.hello.get(name) not in (None, "", {}, [])]


def timeline(device: Device) -> list[Happening]:
    """What it ran and what was delivered, newest first."""
    found = [_ran(span) for span in device.spans.select_related("artifact__version__model")[:MAX_EVENTS]]
    deliveries = Delivery.objects.filter(device=device).select_related("artifact__version__model", "rollout")
    found += [_delivered(delivery) for delivery in deliveries.order_by("-created_at")[:MAX_EVENTS]]
    found.append(Happening(device.enrolled_at, "active", f"enrolled as {device.target.slug}"))
    return sorted(found, key=lambda happening: happening.at, reverse=True)[:MAX_EVENTS]


def _ran(span: Any) -> Happening:
    what = str(span.artifact.version) if span.artifact else f"unknown bytes {span.artifact_sha256[:12]}"
    state = "offline" if span.until else "installed"
    until = f"until {span.until:%Y-%m-%d %H:%M} UTC" if span.until else "runs now"
    return Happening(span.since, state, f"{span.app}: began to run {what}", until)


def _delivered(delivery: Delivery) -> Happening:
    what = str(delivery.artifact.version) if delivery.artifact else "the model before"
    kind = "roll-back to" if delivery.kind == Delivery.Kind.ROLL_BACK else "delivery of"
    at = delivery.finished_at or delivery.changed_at or delivery.created_at
    title = f"{kind} {what} {label(delivery.state)}"
    return Happening(
        at, delivery.state, title, delivery.reason, delivery.rollout_id, delivery.why, str(delivery.pk)
    )


@page("GET", "POST", role=Role.OPERATOR)
def edit(request: HttpRequest, name: str) -> HttpResponse:
    """Change its labels."""
    device = services.device_named(name)
    form = DeviceForm(request.POST or None, initial={"labels": labels_text(device.labels)})
    if request.method == "POST" and form.is_valid():
        changed = attempt(
            request,
            lambda: services.set_labels(reader(request), device, form.cleaned_data["labels"]),
            "Labels are changed.",
        )
        if changed:
            return redirect("dashboard:device", name)
    return render(
        request, "dashboard/pages/device_form.html", {"section": "devices", "form": form, "device": device}
    )


@page("POST", role=Role.OPERATOR)
def command(request: HttpRequest, name: str) -> HttpResponse:
    """Send it a command."""
    device = services.device_named(name)
    asked = str(request.POST.get("name", ""))
    attempt(
        request,
        lambda: services.send_command(reader(request), device, asked, now=timezone.now()),
        f"{label(asked)} goes to {name}; its answer appears under commands.",
    )
    return redirect("dashboard:device", name)


@page("POST", role=Role.ADMIN)
def revoke(request: HttpRequest, name: str) -> HttpResponse:
    """Throw it off the broker for good."""
    device = services.device_named(name)
    attempt(
        request,
        lambda: services.revoke(reader(request), device),
        f"{name} is revoked and thrown off the broker.",
    )
    return redirect("dashboard:device", name)


@page("POST", role=Role.OPERATOR)
def retire(request: HttpRequest, name: str) -> HttpResponse:
    """Take it out of service."""
    device = services.device_named(name)
    attempt(
        request, lambda: services.retire(reader(request), device), f"{name} is retired; its history stays."
    )
    return redirect("dashboard:device", name)


@page("POST", role=Role.ADMIN)
def reinstate(request: HttpRequest, name: str) -> HttpResponse:
    """Let it enrol again."""
    device = services.device_named(name)
    attempt(
        request,
        lambda: services.reinstate(reader(request), device),
        f"{name} may enrol again; its old credential stays worthless.",
    )
    return redirect("dashboard:device", name)
