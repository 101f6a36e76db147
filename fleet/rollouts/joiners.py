"""Late joiners: devices that enter the group while a rollout runs, or after it, are asked in its last wave or a new one."""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet

from fleet.inventory import services as inventory
from fleet.inventory.models import Device, DeviceApp
from fleet.rollouts import candidates, preparation, states, strategy
from fleet.rollouts.conditions import part_of
from fleet.rollouts.models import Decision, Rollout, Wave
from fleet.rollouts.planning import HELD_BACK, Share, chance

LOOKED_EVERY = timedelta(minutes=1)


def open_again(now: datetime) -> QuerySet[Rollout]:
    """Rollouts that succeeded, and whose groups are due to be looked through: none of the app to the group came after."""
    later = Rollout.objects.filter(
        group=OuterRef("group"), app=OuterRef("app"), started_at__gt=OuterRef("started_at")
    )
    done = Rollout.objects.filter(state=Rollout.State.SUCCEEDED, strategy__who__late_joiners="always")
    return done.filter(~Exists(later), joined_at__lte=now - LOOKED_EVERY, version__recalled_at=None)


def take_in(rollout: Rollout, now: datetime, at_once: bool = False) -> int:
    """Add devices that nobody has planned for; how many were added. `at_once`: also within the minute of the last look."""
    rules = strategy.read(rollout.strategy)
    if rollout.state == Rollout.State.RUNNING:
        due = at_once or (rollout.joined_at is not None and now - rollout.joined_at >= LOOKED_EVERY)
        if rules.who.late_joiners == "ignore" or not due:
            return 0
    elif not open_again(now).filter(pk=rollout.pk).exists():
        return 0
    with transaction.atomic():
        # Of several ticks one looks.
        if not Rollout.objects.filter(pk=rollout.pk, joined_at=rollout.joined_at).update(joined_at=now):
            return 0
        rollout.joined_at = now
        fresh = _strangers(rollout)[: preparation.WRITTEN_AT_ONCE]
        return _add(rollout, rules, fresh, now) if fresh else 0


def _strangers(rollout: Rollout) -> list[Device]:
    """Those of the group that the rollout has not heard of, and that are free now."""
    known = {left["device"] for left in rollout.dropped} | set(rollout.held_back)
    # Those with a delivery are nearly all, and never leave the database.
    others = inventory.members(rollout.group, known=rollout.deliveries.values("device"))
    fresh = [device for device in others if device.name not in known]
    if not fresh:
        return []
    taken = {*candidates.busy(rollout.app), *candidates.in_experiments(rollout.app)}
    return [device for device in fresh if device.pk not in taken]


def _add(rollout: Rollout, rules: strategy.Strategy, fresh: list[Device], now: datetime) -> int:
    order = preparation.Order(rollout.version, rollout.group, rollout.app, rules.for_one_by_one())
    plan = preparation.draw_up(order, fresh)
    reasons = {left.device: left.reason for left in plan.left_out}
    reasons |= _ahead(rollout, fresh) if rollout.is_over else {}
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
    return _place(rollout, joining, {device.name: device.pk for device in fresh}, now) if joining else 0


def _ahead(rollout: Rollout, fresh: list[Device]) -> dict[str, str]:
    """Devices that run a newer version of the model already: a rollout that is over does not take them back."""
    rows = DeviceApp.objects.filter(
        app=rollout.app, device__in=fresh, artifact__version__model=rollout.version.model_id
    )
    newer = rows.filter(artifact__version__number__gt=rollout.version.number)
    found = newer.values_list("device__name", "artifact__version__number")
    return {name: f"runs version {number}, which is newer" for name, number in found}


def _place(rollout: Rollout, joining: list[Share], pks: dict[str, int], now: datetime) -> int:
    if rollout.is_over and not states.advance(rollout, "join", finished_at=None):
        return 0
    wave = rollout.waves.exclude(state=Wave.State.PASSED).order_by("number").last()
    if wave is None or wave.state not in (Wave.State.PENDING, Wave.State.RUNNING):
        last = rollout.waves.aggregate(last=Max("number"))["last"] or 0
        wave = Wave.objects.create(rollout=rollout, number=last + 1)
    position = rollout.deliveries.aggregate(last=Max("position"))["last"] or 0
    rows = [
        preparation.columns_of(wave, share, position + n, pks[share.device])
        for n, share in enumerate(joining, start=1)
    ]
    devices, are = ("1 device", "is") if len(rows) == 1 else (f"{len(rows)} devices", "are")
    sentence = f"{devices} that entered the group {are} asked in wave {wave.number}"
    Decision.objects.create(rollout=rollout, wave=wave, verb="join", sentence=sentence)
    return preparation.write(rollout, rows, now)


def _draw(rollout: Rollout, what: str, share: Share) -> float:
    return chance(f"{rollout.pk}/{what}/{share.device}")
