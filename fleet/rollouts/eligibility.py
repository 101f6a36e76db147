"""Whether a delivery that was planned may still be offered, because devices and artifacts change meanwhile.

A device may have left the group or become another target, and an artifact may have been recalled; what was planned
is then skipped with the reason, or another artifact takes its place.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fleet.inventory import services as inventory
from fleet.inventory.models import InstalledSpan
from fleet.registry.models import Artifact, Target
from fleet.rollouts.models import Delivery, Rollout


@dataclass(frozen=True)
class Finding:
    """The artifact that the device gets (None: what was desired is withdrawn), or why it gets nothing."""

    artifact: Artifact | None
    obstacle: str = ""


def examine(batch: Sequence[Delivery]) -> Iterator[tuple[Delivery, Finding]]:
    """Each delivery of one rollout with what was found."""
    if not batch:
        return
    rollout = batch[0].rollout
    installs = [delivery for delivery in batch if delivery.kind == Delivery.Kind.INSTALL]
    gone = _left_the_group(rollout, installs)
    for delivery in batch:
        if delivery.kind == Delivery.Kind.ROLL_BACK:
            yield delivery, _way_back(delivery)
        elif delivery.device_id in gone:
            yield delivery, Finding(None, f"{delivery.device} left group '{rollout.group.slug}'")
        else:
            yield delivery, _install(delivery)


def older_than(delivery: Delivery) -> Artifact | None:
    """What the device ran last that still may run on it and is not what it shall get rid of."""
    spans = InstalledSpan.objects.filter(device=delivery.device_id, app=delivery.rollout.app)
    allowed = spans.filter(artifact__recalled_at=None, artifact__target=delivery.device.target_id)
    other = allowed.exclude(artifact=delivery.previous_id).exclude(
        artifact__version=delivery.rollout.version_id
    )
    last = other.select_related("artifact__target", "artifact__version__model").order_by("-since").first()
    return last.artifact if last else None


def _left_the_group(rollout: Rollout, deliveries: Iterable[Delivery]) -> set[int]:
    """Devices that were in the group when the plan was drawn up and are not now."""
    devices = {delivery.device_id: delivery.device for delivery in deliveries}
    if not devices:
        return set()
    return set(devices) - inventory.members_among(rollout.group, devices.values())


def _install(delivery: Delivery) -> Finding:
    artifact, target = delivery.artifact, delivery.device.target
    if artifact is not None and artifact.recalled_at is None and artifact.target_id == target.pk:
        return Finding(artifact)
    other = _newest(delivery.rollout, target)
    if other is not None:
        return Finding(other)
    if artifact is not None and artifact.recalled_at is not None:
        return Finding(None, f"its artifact was recalled: {artifact.recall_reason}")
    return Finding(None, f"it is a {target} now, and there is no artifact of this version for that")


def _way_back(delivery: Delivery) -> Finding:
    artifact = delivery.artifact
    if artifact is None or (artifact.recalled_at is None and artifact.target_id == delivery.device.target_id):
        return Finding(artifact)
    return Finding(older_than(delivery))


def _newest(rollout: Rollout, target: Target) -> Artifact | None:
    found = Artifact.objects.filter(version=rollout.version_id, target=target, recalled_at=None)
    found = found.filter(version__recalled_at=None)
    return found.select_related("target", "version__model").order_by("-created_at", "-pk").first()
