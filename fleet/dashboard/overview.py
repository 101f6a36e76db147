"""What the overview shows: the fleet as a grid, what needs a person, and what is at work."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q
from django.urls import reverse

from compression_jobs.models import Job
from fleet.dashboard import words
from fleet.inventory.models import Device
from fleet.registry.models import CheckState, Model, ModelVersion
from fleet.rollouts.models import Delivery, Experiment, Rollout
from fleet.telemetry.models import Alert

MAX_TILES = 600
RECENT = timedelta(days=7)


@dataclass(frozen=True)
class Tile:
    """One device of the grid."""

    name: str
    presence: str

    @property
    def tone(self) -> str:
        """What the tile is painted in."""
        return words.tone(self.presence)


@dataclass(frozen=True)
class Need:
    """One thing that waits for a person, and where to do it."""

    state: str
    sentence: str
    address: str
    verb: str
    at: datetime


def fleet(now: datetime) -> tuple[dict[str, list[Tile]], dict[str, int], int]:
    """The tiles by target, how many devices are in each presence, and how many did not fit on the page."""
    devices = list(
        Device.objects.exclude(state=Device.State.RETIRED).select_related("target").order_by("target", "name")
    )
    rows: dict[str, list[Tile]] = defaultdict(list)
    numbers: dict[str, int] = defaultdict(int)
    for position, device in enumerate(devices):
        presence = device.presence_text(now)
        numbers[presence] += 1
        if position < MAX_TILES:
            rows[device.target.name].append(Tile(device.name, presence))
    order = ["in time", "overdue", "offline", "never seen"]
    known = sorted(numbers.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))
    return dict(rows), dict(known), max(0, len(devices) - MAX_TILES)


def needs(now: datetime) -> list[Need]:
    """Everything that waits for a person, newest first."""
    found = [*_rollouts(), *_experiments(), *_alerts(), *_failed_jobs(now), *_refused_uploads(now)]
    return sorted(found, key=lambda need: need.at, reverse=True)


def _rollouts() -> list[Need]:
    verbs = {"held": "Decide", "awaiting_approval": "Review", "paused": "Look", "draft": "Start"}
    waiting = Rollout.objects.filter(state__in=verbs).select_related("version__model", "group")[:20]
    return [
        Need(r.state, f"Rollout of {r} is {words.label(r.state)}. {words.sentence(r.reason)}".strip(), reverse("dashboard:rollout", args=[r.pk]), verbs[r.state], r.created_at)
        for r in waiting
    ]  # fmt: skip


def _experiments() -> list[Need]:
    states = (Experiment.State.DECIDED, Experiment.State.UNDECIDED)
    ended = Experiment.objects.filter(state__in=states).select_related(
        "version_a__model", "version_b__model", "group"
    )[:20]
    return [
        Need(e.state, f"{e}: {words.sentence(e.reason)}", reverse("dashboard:experiment", args=[e.pk]), "Decide", e.finished_at or e.created_at)
        for e in ended
    ]  # fmt: skip


def _alerts() -> list[Need]:
    open_alerts = Alert.objects.filter(closed_at=None).select_related("device")[:20]
    return [
        Need(
            "overdue" if a.kind == Alert.Kind.OVERDUE else "open",
            words.sentence(a.sentence),
            _place(a),
            "Look",
            a.raised_at,
        )
        for a in open_alerts
    ]


def _place(alert: Alert) -> str:
    if alert.device:
        return reverse("dashboard:device", args=[alert.device.name])
    return f"{reverse('dashboard:telemetry')}?artifact={alert.artifact_id}"


def _failed_jobs(now: datetime) -> list[Need]:
    failed = Job.objects.filter(state=Job.State.FAILED, finished_at__gt=now - RECENT).select_related(
        "version__model"
    )[:10]
    return [
        Need(j.state, f"Job {j.pk} for {j.version} failed. {words.sentence(j.reason)}".strip(), reverse("dashboard:job", args=[j.pk]), "Read why", j.finished_at or j.created_at)
        for j in failed
    ]  # fmt: skip


def _refused_uploads(now: datetime) -> list[Need]:
    refused = ModelVersion.objects.filter(
        state=CheckState.REFUSED, created_at__gt=now - RECENT
    ).select_related("model")[:10]
    return [
        Need(v.state, f"{v} was refused: {words.sentence(v.reason)}", reverse("dashboard:version", args=[v.model.slug, v.number]), "Read why", v.created_at)
        for v in refused
    ]  # fmt: skip


def running_jobs() -> list[Job]:
    """Jobs that wait or run."""
    states = (Job.State.RUNNING, Job.State.QUEUED)
    return list(
        Job.objects.filter(state__in=states).select_related("version__model").prefetch_related("targets")[:10]
    )


def running_rollouts() -> list[Rollout]:
    """Rollouts at work, each with how many of its deliveries succeeded, stopped, and how many there are."""
    ends = [state for state in Delivery.ENDS if state != Delivery.State.SUCCEEDED]
    install = Q(deliveries__kind=Delivery.Kind.INSTALL)
    states = (
        Rollout.State.RUNNING,
        Rollout.State.ROLLING_BACK,
        Rollout.State.STARTING,
        Rollout.State.SCHEDULED,
    )
    return list(
        Rollout.objects.filter(state__in=states)
        .select_related("version__model", "group")
        .annotate(
            total=Count("deliveries", filter=install),
            succeeded=Count("deliveries", filter=install & Q(deliveries__state=Delivery.State.SUCCEEDED)),
            stopped=Count("deliveries", filter=install & Q(deliveries__state__in=ends)),
        )
        .order_by("-created_at", "-pk")[:10]
    )


def figures() -> dict[str, Any]:
    """The numbers of the first row."""
    return {
        "models": Model.objects.count(),
        "versions": ModelVersion.objects.filter(state=CheckState.READY).count(),
        "alerts": Alert.objects.filter(closed_at=None).count(),
    }
