"""From the inventory to a plan, and from a plan to rows; the dry run and the start share the first half."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fleet.errors import Conflict, Refused
from fleet.inventory import services as inventory
from fleet.inventory.models import Device, DeviceGroup
from fleet.registry.models import ModelVersion
from fleet.rollouts import candidates, planning, strategy
from fleet.rollouts.models import Delivery, Pair, PlanPart, Rollout, Wave
from fleet.rollouts.strategy import Strategy

AT_WORK = candidates.AT_WORK
# Deliveries that one tick writes: it stays short whatever the fleet, and the rest comes with the next ones.
WRITTEN_AT_ONCE = 1500
# What a part of a plan keeps of each delivery.
COLUMNS: Final = (
    *("wave_id", "device_id", "position", "artifact_id", "hops"),
    *("site", "zone", "byte_budget", "consent", "why"),
)


@dataclass(frozen=True)
class Order:
    """What shall go to whom."""

    version: ModelVersion
    group: DeviceGroup
    app: str
    strategy: Strategy
    only: frozenset[str] | None = None  # names of the devices meant; None: the whole group
    experiment: int | None = None  # what the devices may be taken for, because the rollout is part of it

    @property
    def seed(self) -> str:
        """Fixes the order of devices, so that the dry run shows exactly what the start does."""
        return f"{self.version.pk}/{self.group.pk}/{self.app}"


def order_of(rollout: Rollout) -> Order:
    """What a rollout shall bring to whom."""
    rules = strategy.read(rollout.strategy)
    only = None
    if rollout.experiment_id is not None:
        pairs = Pair.objects.filter(experiment=rollout.experiment_id)
        names = pairs.values_list(f"device_{rollout.side}__name", flat=True)
        only = frozenset(name for name in names if name)
    return Order(rollout.version, rollout.group, rollout.app, rules, only, rollout.experiment_id)


def draw_up(order: Order, devices: Sequence[Device] | None = None) -> planning.Plan:
    """The plan as things are now, for the group or for some devices of it; it may hold no devices."""
    reader = candidates.Reader(order.version, order.app, order.strategy, order.experiment)
    devices = inventory.members(order.group) if devices is None else devices
    if order.only is not None:
        devices = [device for device in devices if device.name in order.only]
    return planning.plan(reader.candidates(devices), reader.offers, order.strategy, order.seed, reader.hops)


def refuse_broken_streams(order: Order) -> None:
    """Raise Refused for a shadow of a model that keeps a state: a shadow passes over inputs when there is no time."""
    if order.strategy.trial.shadow and order.version.facts.get("state_bytes"):
        raise Refused(
            f"{order.version} goes on from what its last run left, and a shadow passes over inputs when there is no time",
            remedy="Roll it out with a trial on the devices themselves instead of a shadow.",
        )


def refuse_empty(order: Order, plan: planning.Plan) -> None:
    """Raise the sentence that says why a plan without devices cannot start."""
    if plan.devices:
        return
    group, problems = order.group.slug, [f"{left.device}: {left.reason}" for left in plan.left_out[:50]]
    if not plan.left_out:
        remedy = "Add devices, or correct its rule." if order.group.is_dynamic else "Add devices to it."
        raise Refused(f"group '{group}' has no devices", remedy=remedy)
    reasons = Counter(left.reason for left in plan.left_out)
    busy = [reason for reason in reasons if reason.endswith("is at work on it")]
    if busy and len(busy) == len(reasons):
        raise Conflict(
            f"every device of group '{group}' is taken: {busy[0]}",
            remedy="Wait until that rollout ends, or abort it.",
            problems=problems,
        )
    raise Refused(
        f"no device of group '{group}' can take {order.version}: {reasons.most_common(1)[0][0]}",
        remedy="Compress the version for the targets of the group, or choose another group.",
        problems=problems,
    )


def keep(rollout: Rollout, plan: planning.Plan, now: datetime) -> None:
    """Keep a plan with its waves, to be written a part at a time; call it in the transaction that starts the rollout."""
    pks = dict(Device.objects.values_list("name", "pk"))
    numbered = enumerate(plan.waves, start=1)
    waves = Wave.objects.bulk_create([Wave(rollout=rollout, number=number) for number, _ in numbered])
    places = [(wave, share) for wave, shares in zip(waves, plan.waves, strict=True) for share in shares]
    rows = [
        columns_of(wave, share, position, pks[share.device])
        for position, (wave, share) in enumerate(places, start=1)
    ]
    parts = [rows[start : start + WRITTEN_AT_ONCE] for start in range(0, len(rows), WRITTEN_AT_ONCE)]
    PlanPart.objects.bulk_create(_part(rollout, number, part) for number, part in enumerate(parts, start=1))
    rollout.dropped = [{"device": left.device, "reason": left.reason} for left in plan.left_out]
    rollout.held_back = plan.held_back
    rollout.joined_at = now
    rollout.save(update_fields=["dropped", "held_back", "joined_at"])


def _part(rollout: Rollout, number: int, rows: Sequence[list[Any]]) -> PlanPart:
    """A part of a plan as it is kept: thousands of devices share a handful of reasons, which are long."""
    # Planning makes one for all devices of a target that leave the same room.
    whys = {id(row[-1]): row[-1] for row in rows}
    places = {key: place for place, key in enumerate(whys)}
    kept = [[*row[:-1], places[id(row[-1])]] for row in rows]
    devices, told = [row[1] for row in rows], list(whys.values())
    return PlanPart(rollout=rollout, number=number, devices=devices, rows=kept, whys=told)


def write_part(rollout: Rollout, now: datetime) -> int:
    """Write the next part of a starting rollout's plan as deliveries; how many, 0 when another did or all is written.

    Call it in a transaction: the row of the rollout is locked, so each part is written once and none after an abort.
    """
    starting = Rollout.objects.select_for_update(no_key=True).filter(
        pk=rollout.pk, state=Rollout.State.STARTING
    )
    if not starting.values_list("pk"):
        return 0
    part = rollout.unwritten.order_by("number").first()
    if part is None:
        return 0
    _take_over(rollout, part.devices, now)
    part.delete()
    return write(rollout, [[*row[:-1], part.whys[row[-1]]] for row in part.rows], now)


def columns_of(wave: Wave, share: planning.Share, position: int, device: int) -> list[Any]:
    """One device's part of the plan, in the order of COLUMNS."""
    first, *later = (*share.hops, share.artifact)
    consent = Delivery.Consent.WANTED if share.asks else ""
    place = [wave.pk, device, position, first, later]
    return [*place, share.site, share.zone, share.bytes_per_day, consent, share.why]


def write(rollout: Rollout, rows: Sequence[Sequence[Any]], now: datetime) -> int:
    """Write parts of a plan as deliveries; how many."""
    made = [_delivery(rollout, columns, now) for columns in rows]
    return len(Delivery.objects.bulk_create(made, batch_size=500))


def _delivery(rollout: Rollout, columns: Sequence[Any], now: datetime) -> Delivery:
    return Delivery(rollout=rollout, changed_at=now, **dict(zip(COLUMNS, columns, strict=True)))


def _take_over(rollout: Rollout, devices: Sequence[int], now: datetime) -> None:
    """Devices of this plan are no longer asked by rollouts of a lower priority; those at work there go on until ours comes."""
    rivals = Delivery.objects.filter(
        device__in=devices,
        rollout__app=rollout.app,
        rollout__state__in=AT_WORK,
        kind=Delivery.Kind.INSTALL,
        state=Delivery.State.PENDING,
    ).exclude(rollout=rollout)
    rivals.update(
        state=Delivery.State.SUPERSEDED,
        reason=f"rollout {rollout.pk} has a higher priority",
        changed_at=now,
        finished_at=now,
    )
