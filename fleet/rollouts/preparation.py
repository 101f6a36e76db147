"""From the inventory to a plan, and from a plan to rows; the dry run and the start share the first half."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.errors import Conflict, Refused
from fleet.inventory import services as inventory
from fleet.inventory.models import Device, DeviceApp, DeviceGroup
from fleet.registry.models import Artifact, ModelVersion
from fleet.rollouts import planning
from fleet.rollouts.models import Delivery, Rollout, Wave
from fleet.rollouts.strategy import Strategy

# While a rollout is in one of these states its devices belong to it.
AT_WORK = (Rollout.State.RUNNING, Rollout.State.PAUSED, Rollout.State.HELD, Rollout.State.ROLLING_BACK)
_NOT_TAKING_PART = (Delivery.State.CANCELLED, Delivery.State.SKIPPED, Delivery.State.SUPERSEDED)


@dataclass(frozen=True)
class Order:
    """What shall go to whom."""

    version: ModelVersion
    group: DeviceGroup
    app: str
    strategy: Strategy

    @property
    def seed(self) -> str:
        """Fixes the order of devices, so that the dry run shows exactly what the start does."""
        return f"{self.version.pk}/{self.group.pk}/{self.app}"


def draw_up(order: Order) -> planning.Plan:
    """The plan as things are now; it may hold no devices."""
    devices = inventory.members(order.group)
    offers = newest_offers(order.version)
    asked = candidates(devices, order.app, recalls(order.version))
    return planning.plan(asked, offers, order.strategy, order.seed)


def refuse_empty(order: Order, plan: planning.Plan) -> None:
    """Raise the sentence that says why a plan without devices cannot start."""
    if plan.devices:
        return
    group, problems = order.group.slug, [f"{left.device}: {left.reason}" for left in plan.left_out[:50]]
    if not plan.left_out:
        remedy = "Add devices, or correct its rule." if order.group.is_dynamic else "Add devices to it."
        raise Refused(f"group '{group}' has no devices", remedy=remedy)
    reasons = {left.reason for left in plan.left_out}
    busy = [reason for reason in reasons if reason.endswith("is at work on it")]
    if busy and len(busy) == len(reasons):
        raise Conflict(
            f"every device of group '{group}' is taken: {busy[0]}",
            remedy="Wait until that rollout ends, or abort it.",
            problems=problems,
        )
    raise Refused(
        f"no device of group '{group}' can take {order.version}: {sorted(reasons)[0]}",
        remedy="Compress the version for the targets of the group, or choose another group.",
        problems=problems,
    )


def newest_offers(version: ModelVersion) -> dict[str, planning.Offer]:
    """The newest artifact of a version by slug of target; recalled ones do not count."""
    found = Artifact.objects.filter(version=version, version__recalled_at=None, recalled_at=None)
    found = found.select_related("target")
    return {
        artifact.target.slug: planning.Offer(
            artifact.pk, artifact.sha256, artifact.bytes, artifact.transport_bytes
        )
        for artifact in found.order_by("created_at", "pk")
    }


def recalls(version: ModelVersion) -> dict[str, str]:
    """Why the newest recalled artifact of a version went, by slug of target."""
    found = Artifact.objects.filter(version=version, recalled_at__isnull=False).select_related("target")
    return {
        artifact.target.slug: f"artifact {artifact.pk} is recalled: {artifact.recall_reason}"
        for artifact in found.order_by("created_at", "pk")
    }


def candidates(devices: Sequence[Device], app: str, recalled: Mapping[str, str]) -> list[planning.Candidate]:
    """What planning needs to know of each device."""
    runs = dict(DeviceApp.objects.filter(app=app).values_list("device_id", "artifact_sha256"))
    taken = busy(app)
    return [
        planning.Candidate(
            device=device.name,
            target=device.target.slug,
            runtime=device.target.runtime,
            export_only=device.target.export_only,
            state=device.state,
            installed=runs.get(device.pk, ""),
            busy_with=taken.get(device.pk, ""),
            recalled=recalled.get(device.target.slug, ""),
        )
        for device in devices
    ]


def busy(app: str) -> dict[int, str]:
    """Devices that belong to a rollout at work on this app, and to which."""
    taken = Delivery.objects.filter(rollout__app=app, rollout__state__in=AT_WORK)
    taken = taken.exclude(state__in=_NOT_TAKING_PART)
    return {device: f"rollout {rollout}" for device, rollout in taken.values_list("device_id", "rollout_id")}


def lay_out(rollout: Rollout, plan: planning.Plan, now: datetime) -> None:
    """Write the plan's waves and deliveries; call it in the transaction that starts the rollout."""
    pks = dict(Device.objects.values_list("name", "pk"))
    numbered = enumerate(plan.waves, start=1)
    waves = Wave.objects.bulk_create([Wave(rollout=rollout, number=number) for number, _ in numbered])
    position = itertools.count(1)
    deliveries = [
        Delivery(
            rollout=rollout,
            wave=wave,
            position=next(position),
            device_id=pks[share.device],
            artifact_id=share.artifact,
            changed_at=now,
        )
        for wave, shares in zip(waves, plan.waves, strict=True)
        for share in shares
    ]
    Delivery.objects.bulk_create(deliveries, batch_size=500)
    rollout.dropped = [{"device": left.device, "reason": left.reason} for left in plan.left_out]
    rollout.save(update_fields=["dropped"])
