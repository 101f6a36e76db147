"""What changed on devices that stayed on the old version meanwhile: a season, a sensor, a lamp is nobody's fault."""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Q

from fleet.inventory.models import Device, DeviceApp
from fleet.rollouts import changes, signals
from fleet.rollouts.models import Delivery, Rollout
from fleet.telemetry import comparisons


def pair(rollout: Rollout, fresh: Sequence[Delivery]) -> None:
    """Add to the facts of devices that kept the version how they differ from those held back over the same time.

    Only devices of one target are paired; a held-back device is used once a rollout, so its luck counts once.
    """
    used = _used(rollout)
    targets = sorted({delivery.artifact.target_id for delivery in fresh if delivery.artifact})
    for target in targets:
        here = [d for d in fresh if d.artifact is not None and d.artifact.target_id == target]
        unused = Device.objects.filter(name__in=set(rollout.held_back) - used, target=target)
        devices = list(unused.filter(state=Device.State.ACTIVE).order_by("name"))
        devices = devices[: _due(rollout, target, len(here), len(devices))]
        if devices:
            _note(here, devices, _changes(rollout, devices, _middle(here)))


def _used(rollout: Rollout) -> set[str]:
    evidence = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL).values_list("evidence", flat=True)
    return {name for each in evidence for name in each.get("field", {}).get("held_back", [])}


def _due(rollout: Rollout, target: int, fresh: int, unused: int) -> int:
    """How many of the unused ones are compared now: as large a share as `fresh` is of all that are still to come."""
    waiting = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL, artifact__target=target)
    unread = Q(state=Delivery.State.SUCCEEDED) & ~Q(evidence__has_key="field")
    left = waiting.filter(unread | ~Q(state__in=Delivery.ENDS)).count() - fresh
    return signals.held_back_due(unused, fresh, left)


def _middle(deliveries: Sequence[Delivery]) -> datetime | None:
    times = sorted(delivery.offered_at for delivery in deliveries if delivery.offered_at)
    return times[len(times) // 2] if times else None


def _changes(rollout: Rollout, devices: Sequence[Device], since: datetime | None) -> list[dict[str, float]]:
    """How each held-back device changed at that time, on the artifact it has."""
    rows = DeviceApp.objects.filter(app=rollout.app, device__in=devices).exclude(artifact_sha256="")
    if since is None:
        return []
    questions = [
        comparisons.Question(device, sha256, sha256, since)
        for device, sha256 in rows.order_by("device__name").values_list("device_id", "artifact_sha256")
    ]
    found = comparisons.compare(rollout.app, questions)
    return [changes.differences(found[question.device]) for question in questions]


def _note(fresh: Sequence[Delivery], devices: Sequence[Device], held: Sequence[dict[str, float]]) -> None:
    fresh[0].evidence["field"]["held_back"] = [device.name for device in devices]
    for signal in signals.PAIRED:
        ours = [d for d in fresh if signal in d.evidence["field"]["differences"]]
        new = [d.evidence["field"]["differences"][signal] for d in ours]
        theirs = [each[signal] for each in held if signal in each]
        for delivery, value in zip(ours, signals.against_hold_back(new, theirs), strict=False):
            delivery.evidence["field"].setdefault("against_hold_back", {})[signal] = round(value, 5)
