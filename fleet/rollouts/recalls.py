"""Recalling a version: no device may run it any more; those that do go back, and the list says who still runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Q, QuerySet

from fleet.accounts.roles import Caller, Role, allows, require
from fleet.inventory.models import Device, DeviceApp, InstalledSpan
from fleet.registry import services as registry
from fleet.registry.models import ModelVersion
from fleet.rollouts import deliveries, engine, states
from fleet.rollouts.models import Delivery, Rollout

SHOWN = 1000
_GOING = (Rollout.State.RUNNING, Rollout.State.PAUSED, Rollout.State.HELD)
_NO_WAY_BACK = "nothing to go back to: roll out another version"
_PUT_AWAY = "it is {} and hears nothing"


@dataclass(frozen=True)
class StillRuns:
    """One device that says it runs the version, and what becomes of that."""

    device: str
    app: str
    target: str
    since: datetime | None
    outlook: str


def recall(user: Caller, version: ModelVersion, *, reason: str, now: datetime) -> ModelVersion:
    """Take a version out of service: rollouts of it end, devices that run it go back, planning leaves it out.

    Saying it twice changes nothing.
    """
    if not allows(user, Role.ENGINEER):
        require(user, Role.OPERATOR)
    with transaction.atomic():
        if registry.recall_version(version, reason=reason, user=user):
            _bring_back(user, version, f"{version} was recalled: {reason.strip()}", now)
    version.refresh_from_db()
    return version


def still_runs(version: ModelVersion) -> list[StillRuns]:
    """Every device that said last that it runs the version, with what becomes of that."""
    rows = list(_runs(version).select_related("device__target").order_by("device__name", "app")[:SHOWN])
    devices = [row.device_id for row in rows]
    spans = InstalledSpan.objects.filter(device__in=devices, until=None, artifact__version=version)
    since = {(span.device_id, span.app): span.since for span in spans}
    waiting = _ways_back(devices)
    return [
        StillRuns(
            row.device.name,
            row.app,
            row.device.target.slug,
            since.get((row.device_id, row.app)),
            _outlook(row, waiting),
        )
        for row in rows
    ]


def _runs(version: ModelVersion) -> QuerySet[DeviceApp]:
    return DeviceApp.objects.filter(artifact__version=version)


def _bring_back(user: Caller, version: ModelVersion, sentence: str, now: datetime) -> None:
    for rollout in Rollout.objects.filter(version=version).select_related("version__model", "group"):
        if rollout.state in states.NOBODY_ASKED:
            engine.stop(rollout, sentence, now, decided_by_id=user.pk)
        elif _is_out(rollout) and engine.begin_way_back(rollout, sentence, now):
            engine.note(rollout, "recall", sentence, decided_by_id=user.pk)
    _turn_ways_back_to_it(version, sentence, now)


def _is_out(rollout: Rollout) -> bool:
    """Whether a rollout is under way, or is over and left devices that run its version."""
    if rollout.state in _GOING:
        return True
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL, offered_at__isnull=False)
    runs = _runs(rollout.version).filter(app=rollout.app, device__in=installs.values("device"))
    return rollout.started_at is not None and runs.exists()


def _turn_ways_back_to_it(version: ModelVersion, sentence: str, now: datetime) -> None:
    """Devices on their way back to the version, or there, are sent to something older; the offer finds what."""
    to_it = Delivery.objects.filter(
        Q(state__in=states.ACTIVE) | Q(state=Delivery.State.SUCCEEDED, intents__current=True),
        kind=Delivery.Kind.ROLL_BACK,
        artifact__version=version,
    )
    for delivery in to_it.select_related("device").distinct():
        deliveries.try_again(delivery, "requeue", now, sentence)


def _ways_back(devices: list[int]) -> Mapping[tuple[int, str], Delivery]:
    found = Delivery.objects.filter(kind=Delivery.Kind.ROLL_BACK, device__in=devices)
    newest = found.select_related("rollout", "artifact__version__model").order_by("created_at")
    return {(delivery.device_id, delivery.rollout.app): delivery for delivery in newest}


def _outlook(row: DeviceApp, waiting: Mapping[tuple[int, str], Delivery]) -> str:
    if row.device.state != Device.State.ACTIVE:
        return _PUT_AWAY.format(row.device.state)
    delivery = waiting.get((row.device_id, row.app))
    if delivery is None:
        return "nothing was sent: no rollout of this server brought it there, roll out another version"
    if delivery.state == Delivery.State.SKIPPED or (delivery.artifact is None and delivery.is_over):
        return _NO_WAY_BACK
    if delivery.artifact is None:
        return "the way back is being prepared"
    return f"goes back to {delivery.artifact.version} ({delivery.state.replace('_', ' ')})"
