"""Late joiners: devices that enter the group while a rollout runs are asked in its last wave."""

import hashlib
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max

from fleet.inventory import services as inventory
from fleet.inventory.models import Device
from fleet.rollouts import preparation, strategy
from fleet.rollouts.conditions import part_of
from fleet.rollouts.models import Rollout, Wave
from fleet.rollouts.planning import HELD_BACK, Share

LOOKED_EVERY = timedelta(minutes=1)


def take_in(rollout: Rollout, now: datetime) -> int:
    """Add devices that nobody has planned for; how many were added."""
    rules = strategy.read(rollout.strategy)
    due = rollout.joined_at is not None and now - rollout.joined_at >= LOOKED_EVERY
    if rollout.state != Rollout.State.RUNNING or rules.who.late_joiners == "ignore" or not due:
        return 0
    with transaction.atomic():
        # Of several ticks one looks.
        if not Rollout.objects.filter(pk=rollout.pk, joined_at=rollout.joined_at).update(joined_at=now):
            return 0
        rollout.joined_at = now
        fresh = _strangers(rollout)
        return _add(rollout, rules, fresh, now) if fresh else 0


def _strangers(rollout: Rollout) -> list[Device]:
    left_out = {left["device"] for left in rollout.dropped} | set(rollout.held_back)
    # Those with a delivery are nearly all, and never leave the database.
    others = inventory.members(rollout.group, known=rollout.deliveries.values("device"))
    return [device for device in others if device.name not in left_out]


def _add(rollout: Rollout, rules: strategy.Strategy, fresh: list[Device], now: datetime) -> int:
    order = preparation.Order(rollout.version, rollout.group, rollout.app, rules.for_one_by_one())
    plan = preparation.draw_up(order, fresh)
    reasons = {left.device: left.reason for left in plan.left_out}
    held = {s.device for s in plan.shares if _draw(rollout, "hold-back", s) < part_of(rules.who.hold_back)}
    reasons |= dict.fromkeys(held, HELD_BACK)
    if rules.who.share:
        out = [s.device for s in plan.shares if _draw(rollout, "share", s) >= part_of(rules.who.share)]
        reasons |= dict.fromkeys(out, f"is not among the {rules.who.share} that take part")
    dropped = [{"device": name, "reason": reason} for name, reason in reasons.items()]
    rollout.dropped = [*rollout.dropped, *dropped]
    rollout.held_back = [*rollout.held_back, *sorted(name for name in held if reasons[name] == HELD_BACK)]
    rollout.save(update_fields=["dropped", "held_back"])
    joining = [share for share in plan.shares if share.device not in reasons]
    return _place(rollout, joining, {device.name: device.pk for device in fresh}, now)


def _place(rollout: Rollout, joining: list[Share], pks: dict[str, int], now: datetime) -> int:
    wave = rollout.waves.exclude(state=Wave.State.PASSED).order_by("number").last()
    if wave is None or wave.state not in (Wave.State.PENDING, Wave.State.RUNNING):
        last = rollout.waves.aggregate(last=Max("number"))["last"] or 0
        wave = Wave.objects.create(rollout=rollout, number=last + 1) if joining else wave
    if not joining or wave is None:
        return 0
    position = rollout.deliveries.aggregate(last=Max("position"))["last"] or 0
    rows = [
        preparation.columns_of(wave, share, position + n, pks[share.device])
        for n, share in enumerate(joining, start=1)
    ]
    return preparation.write(rollout, rows, now)


def _draw(rollout: Rollout, what: str, share: Share) -> float:
    """A number from 0 to 1 that comes out the same whenever it is drawn."""
    drawn = hashlib.sha256(f"{rollout.pk}/{what}/{share.device}".encode()).digest()
    return int.from_bytes(drawn[:8]) / 2**64
