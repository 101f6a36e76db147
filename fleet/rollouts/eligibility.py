"""Whether a delivery that was planned may still be offered, because devices and artifacts change meanwhile.

A device may have left the group or become another target, and an artifact may have been recalled; what was planned
is then skipped with the reason, or what a new plan gives the device takes its place.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.inventory import services as inventory
from fleet.inventory.models import InstalledSpan
from fleet.registry.models import Artifact
from fleet.rollouts import candidates, planning, strategy
from fleet.rollouts.models import Delivery, Rollout


@dataclass(frozen=True)
class Finding:
    """The artifact that the device gets (None: what was desired is withdrawn), or why it gets nothing."""

    artifact: Artifact | None
    obstacle: str = ""
    # Where it was planned anew: artifacts of the versions that follow, and why this one.
    hops: tuple[int, ...] = ()
    why: tuple[dict[str, Any], ...] = ()


def examine(batch: Sequence[Delivery]) -> Iterator[tuple[Delivery, Finding]]:
    """Each delivery of one rollout with what was found."""
    if not batch:
        return
    rollout = batch[0].rollout
    installs = [delivery for delivery in batch if delivery.kind == Delivery.Kind.INSTALL]
    gone = _left_the_group(rollout, installs)
    anew = _plan_anew(rollout, [d for d in installs if d.device_id not in gone and not _still_fits(d)])
    for delivery in batch:
        if delivery.kind == Delivery.Kind.ROLL_BACK:
            yield delivery, _way_back(delivery)
        elif delivery.device_id in gone:
            yield delivery, Finding(None, f"{delivery.device} left group '{rollout.group.slug}'")
        else:
            yield delivery, anew.get(delivery.device_id) or Finding(delivery.artifact)


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


def _still_fits(delivery: Delivery) -> bool:
    artifact = delivery.artifact
    if artifact is None or artifact.recalled_at is not None:
        return False
    return artifact.target_id == delivery.device.target_id


def _plan_anew(rollout: Rollout, deliveries: Sequence[Delivery]) -> dict[int, Finding]:
    """What devices get that became another target, or lost their artifact to a recall; by device."""
    if not deliveries:
        return {}
    rules = strategy.read(rollout.strategy).for_one_by_one()
    reader = candidates.Reader(rollout.version, rollout.app, rules)
    devices = [delivery.device for delivery in deliveries]
    # They belong to this rollout, which is what they are busy with.
    asking = [replace(each, busy_with="") for each in reader.candidates(devices)]
    made = planning.plan(asking, reader.offers, rules, str(rollout.pk), reader.hops)
    artifacts = Artifact.objects.select_related("target", "version__model").in_bulk(
        {(*share.hops, share.artifact)[0] for share in made.shares}
    )
    pks = {device.name: device.pk for device in devices}
    found = {pks[share.device]: _as_planned(share, artifacts) for share in made.shares}
    for left in made.left_out:
        device = next(each for each in devices if each.name == left.device)
        found[device.pk] = Finding(None, f"it is a {device.target}, and {left.reason}")
    return found


def _as_planned(share: planning.Share, artifacts: dict[int, Artifact]) -> Finding:
    first, *later = (*share.hops, share.artifact)
    return Finding(artifacts[first], hops=tuple(later), why=share.why)


def _way_back(delivery: Delivery) -> Finding:
    artifact = delivery.artifact
    if artifact is None or (artifact.recalled_at is None and artifact.target_id == delivery.device.target_id):
        return Finding(artifact)
    return Finding(older_than(delivery))
