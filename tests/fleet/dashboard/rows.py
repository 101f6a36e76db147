"""Rollouts as the engine would have laid them out."""

import uuid
from typing import Any

from django.utils import timezone

from fleet.inventory.models import Device, DeviceGroup
from fleet.registry.models import Artifact
from fleet.rollouts.models import Delivery, Rollout, Wave
from fleet.rollouts.strategy import Strategy


def rollout(artifact: Artifact, devices: list[Device], group: DeviceGroup, **fields: Any) -> Rollout:
    """A running rollout with one wave in which every device was offered the artifact."""
    now = timezone.now()
    fields = {
        "state": Rollout.State.RUNNING,
        "started_at": now,
        "strategy": Strategy().model_dump(),
        **fields,
    }
    made = Rollout.objects.create(version=artifact.version, group=group, **fields)
    wave = Wave.objects.create(rollout=made, number=1, state=Wave.State.RUNNING)
    for device in devices:
        Delivery.objects.create(
            id=uuid.uuid4(), rollout=made, wave=wave, device=device, artifact=artifact,
            state=Delivery.State.DOWNLOADING, offered_at=now, changed_at=now,
        )  # fmt: skip
    return made
