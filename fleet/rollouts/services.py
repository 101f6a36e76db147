"""Verbs of rollouts, shared by pages, API and command line. Each is safe when two people press it at once."""

from datetime import datetime
from typing import Any, Literal

from django.db import transaction
from django.db.models import Q

from device_agent.core import protocol
from fleet import events
from fleet.accounts.roles import Caller, Role, require
from fleet.errors import Conflict, NotFound, Refused
from fleet.inventory.models import DeviceGroup
from fleet.registry.models import ModelVersion
from fleet.rollouts import deliveries, engine, planning, preparation, states, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave


def rollout_by_id(pk: int) -> Rollout:
    """The rollout, or NotFound."""
    found = Rollout.objects.select_related("version__model", "group").filter(pk=pk).first()
    if found is None:
        raise NotFound(f"there is no rollout {pk}", remedy="Look at the list of rollouts.")
    return found


def version_of(model: str, number: int) -> ModelVersion:
    """A version by its model's slug and its number, or NotFound."""
    found = ModelVersion.objects.select_related("model").filter(model__slug=model, number=number).first()
    if found is None:
        raise NotFound(
            f"there is no version {number} of model '{model[:80]}'", remedy="Look at the list of models."
        )
    return found


def preview(
    user: Caller, *, version: ModelVersion, group: DeviceGroup, app: str = "main", rules: Any = None
) -> planning.Plan:
    """The dry run: exactly what a start would do now. Refused when there is nothing to do."""
    require(user, Role.VIEWER)
    order = _order(version, group, app, strategy.read(rules))
    plan = preparation.draw_up(order)
    preparation.refuse_empty(order, plan)
    return plan


def create(
    user: Caller,
    *,
    version: ModelVersion,
    group: DeviceGroup,
    app: str = "main",
    rules: Any = None,
    start_at: datetime | None = None,
) -> Rollout:
    """A draft, after the same checks as the dry run."""
    require(user, Role.OPERATOR)
    checked = strategy.read(rules)
    preview(user, version=version, group=group, app=app, rules=rules)
    rollout = Rollout.objects.create(
        version=version,
        group=group,
        app=app,
        strategy=checked.model_dump(),
        start_at=start_at,
        created_by_id=user.pk,
    )
    events.publish("rollouts", "overview")
    return rollout


def start(user: Caller, rollout: Rollout) -> Rollout:
    """Schedule a draft for now or its time, or ask for approval where the strategy wants one."""
    if strategy.read(rollout.strategy).require_approval:
        return _verb(user, rollout, "ask_approval", "start", "waits for approval")
    return _verb(user, rollout, "schedule", "start", _when(rollout))


def approve(user: Caller, rollout: Rollout) -> Rollout:
    """Approve a rollout that waits for it."""
    return _verb(user, rollout, "approve", "approve", f"approved; {_when(rollout)}")


def pause(user: Caller, rollout: Rollout) -> Rollout:
    """Ask nobody else for now; deliveries at work go on to their end."""
    return _verb(user, rollout, "pause", "pause", "paused by hand")


def resume(user: Caller, rollout: Rollout) -> Rollout:
    """Go on after a pause."""
    return _verb(user, rollout, "resume", "resume", "resumed by hand")


def advance(user: Caller, rollout: Rollout, *, now: datetime) -> Rollout:
    """Open the next wave now: a person decides where the gate held, or does not wait for the rest of the soak."""
    require(user, Role.OPERATOR)
    with transaction.atomic():
        wave = rollout.waves.filter(state__in=(Wave.State.HELD, Wave.State.SOAKING)).first()
        if wave is None or rollout.state not in (Rollout.State.RUNNING, Rollout.State.HELD):
            raise _not_now(rollout, "advanced", "a wave must be held or soaking")
        if rollout.state == Rollout.State.HELD:
            states.advance(rollout, "advance", reason="")
        if states.advance(wave, "pass", finished_at=now):
            sentence = f"wave {wave.number} was passed by hand"
            engine.note(rollout, "advance", sentence, wave, decided_by_id=user.pk)
    return rollout


def abort(user: Caller, rollout: Rollout, mode: Literal["keep", "revert"], *, now: datetime) -> Rollout:
    """Stop for good. keep: devices that have it keep it, all others stay as they were; revert: everybody goes back."""
    if mode == "revert" and rollout.started_at is not None:
        return roll_back(user, rollout, now=now)
    require(user, Role.OPERATOR)
    with transaction.atomic():
        sentence = (
            "aborted by hand; devices that have it keep it"
            if rollout.started_at
            else "aborted before it started"
        )
        if not states.advance(rollout, "abort", reason=sentence, finished_at=now):
            if rollout.state == Rollout.State.ABORTED:
                return rollout
            raise _not_now(rollout, "aborted")
        waiting = deliveries.open_ones(rollout).filter(state=Delivery.State.PENDING).select_related("device")
        deliveries.cancel(waiting, now, "the rollout was aborted")
        # A device at work would finish the download: only a newer signed intent calls it back.
        deliveries.go_back(rollout, Q(state__in=states.ACTIVE), now, "the rollout was aborted")
        for wave in rollout.waves.exclude(state=Wave.State.PASSED):
            states.advance(wave, "fail", finished_at=now)
        engine.note(rollout, "abort", sentence, decided_by_id=user.pk)
    return rollout


def roll_back(user: Caller, rollout: Rollout, *, now: datetime) -> Rollout:
    """Bring every device that was asked back to what it ran before, those that are away when they return."""
    require(user, Role.OPERATOR)
    sentence = "rolled back by hand"
    with transaction.atomic():
        if engine.begin_way_back(rollout, sentence, now):
            engine.note(rollout, "roll_back", sentence, decided_by_id=user.pk)
        elif rollout.state not in (Rollout.State.ROLLING_BACK, Rollout.State.ROLLED_BACK):
            raise _not_now(rollout, "rolled back")
    return rollout


def possible_verbs(rollout: Rollout) -> list[str]:
    """Verbs that make sense now, as pages offer them."""
    found = {
        "ask_approval": "start",
        "schedule": "start",
        "approve": "approve",
        "pause": "pause",
        "resume": "resume",
        "advance": "advance",
        "abort": "abort",
        "roll_back": "roll-back",
    }
    verbs = {found[event] for event in states.possible(rollout) if event in found}
    if rollout.waves.filter(state=Wave.State.SOAKING).exists() and rollout.state == Rollout.State.RUNNING:
        verbs.add("advance")
    return [verb for verb in dict.fromkeys(found.values()) if verb in verbs]


def exposed(rollout: Rollout) -> int:
    """How many devices ran the version, if only on trial."""
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL)
    lines = installs.values_list("state", "history")
    ran = (Delivery.State.TRIAL, Delivery.State.SUCCEEDED, Delivery.State.ROLLED_BACK)
    return sum(state in ran or any(line.get("state") in ran for line in history) for state, history in lines)


def _order(
    version: ModelVersion, group: DeviceGroup, app: str, rules: strategy.Strategy
) -> preparation.Order:
    if version.state != ModelVersion.State.READY:
        raise Conflict(
            f"{version} is {version.state} and cannot be rolled out",
            remedy="Wait for its check, or upload it again.",
        )
    if not protocol.is_id(app):
        raise Refused(f"'{app[:80]}' is no app name", remedy="Use letters, digits, hyphen and underscore.")
    return preparation.Order(version, group, app, rules)


def _verb(user: Caller, rollout: Rollout, event: str, verb: str, sentence: str) -> Rollout:
    """One compare-and-set; pressing the same button twice is no error."""
    require(user, Role.OPERATOR)
    with transaction.atomic():
        if states.advance(rollout, event, reason=sentence):
            engine.note(rollout, verb, sentence, decided_by_id=user.pk)
            return rollout
    rollout.refresh_from_db(fields=["state", "reason"])
    if rollout.state not in states.ROLLOUT[event].values():
        raise _not_now(rollout, {"start": "started", "approve": "approved"}.get(verb, f"{verb}d"))
    return rollout


def _when(rollout: Rollout) -> str:
    return f"starts at {rollout.start_at:%Y-%m-%d %H:%M} UTC" if rollout.start_at else "starts now"


def _not_now(rollout: Rollout, participle: str, need: str = "") -> Conflict:
    verbs = possible_verbs(rollout)
    remedy = f"Possible now: {', '.join(verbs)}." if verbs else "It is over; create a new one."
    because = f"; {need}" if need else ""
    return Conflict(
        f"rollout {rollout.pk} is {rollout.state.replace('_', ' ')} and cannot be {participle}{because}",
        remedy=remedy,
    )
