"""Verbs of rollouts, shared by pages, API and command line. Each is safe when two people press it at once."""

from datetime import datetime, timedelta
from typing import Any, Literal

from django.db import IntegrityError, transaction
from django.utils import timezone

from device_agent.core import protocol
from fleet import events
from fleet.accounts.roles import Caller, Role, require
from fleet.errors import Conflict, NotFound, Refused
from fleet.inventory.models import DeviceGroup
from fleet.registry.models import ModelVersion
from fleet.rollouts import deliveries, engine, planning, preparation, retries, shadows, states, strategy
from fleet.rollouts.models import Delivery, Experiment, Rollout, Wave
from fleet.rollouts.parts import Part

MAX_NOTE = 500
MAX_KEY = 64
# Further than that is a slip, or beyond what a calendar holds.
MOST_AHEAD = timedelta(days=36525)

_GOING_BACK = (Rollout.State.ROLLING_BACK, Rollout.State.ROLLED_BACK)

# What a start or an approval comes to by itself.
_FOLLOW = (Rollout.State.SCHEDULED, Rollout.State.STARTING, Rollout.State.RUNNING)

# In the order in which pages offer them.
VERBS = ("start", "schedule", "approve", "pause", "resume", "advance", "retry", "abort", "roll-back")


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
    order = order_for(version, group, app, strategy.read(rules))
    preparation.refuse_broken_streams(order)
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
    key: str = "",
    half: tuple[Experiment, str] | None = None,
) -> Rollout:
    """A draft, after the same checks as the dry run; asked for twice with one `key`, it is made once.

    `half`: the experiment and its side that the rollout is for; its devices are known to be able to take part.
    """
    require(user, Role.OPERATOR)
    if made := _made_before(user, key, version, group):
        return made
    _refuse_far_away(start_at)
    checked = strategy.read(rules)
    if half is None:
        preview(user, version=version, group=group, app=app, rules=rules)
    part = {"experiment": half[0], "side": half[1]} if half else {}
    try:
        with transaction.atomic():
            made_by = {"created_by_id": user.pk, "key": _key(user, key), "state_since": timezone.now()}
            what = {"version": version, "group": group, "app": app, "start_at": start_at}
            rollout = Rollout.objects.create(**what, **made_by, **part, strategy=checked.model_dump())
            events.publish("rollouts", "overview")
    except IntegrityError:
        # Pressed twice, and the other one was first.
        if made := _made_before(user, key, version, group):
            return made
        raise
    return rollout


def clone(user: Caller, rollout: Rollout, *, version: ModelVersion | None = None, key: str = "") -> Rollout:
    """A draft like another rollout, by default with its version; its past stays with the other one."""
    return create(
        user,
        version=version or rollout.version,
        group=rollout.group,
        app=rollout.app,
        rules=rollout.strategy,
        key=key,
    )


def start(user: Caller, rollout: Rollout, *, note: str = "") -> Rollout:
    """Schedule a draft for now or its time, or ask for approval where the strategy wants one."""
    if strategy.read(rollout.strategy).require_approval:
        return _verb(user, rollout, "ask_approval", "start", because("waits for approval", note))
    return _verb(user, rollout, "schedule", "start", because(_when(rollout), note))


def schedule(user: Caller, rollout: Rollout, start_at: datetime | None, *, note: str = "") -> Rollout:
    """Start a draft at a time, or move the start of one that waits; None is now."""
    require(user, Role.OPERATOR)
    _refuse_far_away(start_at)
    with transaction.atomic():
        _lock(rollout)
        if rollout.state not in states.UNSTARTED:
            began = rollout.started_at or rollout.state == Rollout.State.STARTING
            raise _not_now(rollout, "scheduled", "it began already" if began else "")
        if rollout.state != Rollout.State.DRAFT and rollout.start_at == start_at:
            return rollout
        rollout.start_at = start_at
        if rollout.state == Rollout.State.SCHEDULED:
            rollout.reason = because(_when(rollout), note)
        rollout.save(update_fields=["start_at", "reason"])
        if rollout.state == Rollout.State.DRAFT:
            return start(user, rollout, note=note)
        engine.note(rollout, "schedule", because(_when(rollout), note), decided_by_id=user.pk)
    return rollout


def approve(user: Caller, rollout: Rollout, *, note: str = "") -> Rollout:
    """Approve a rollout that waits for it: a second person does, not the one who made it."""
    require(user, Role.OPERATOR)
    if rollout.state == Rollout.State.AWAITING_APPROVAL and rollout.created_by_id == user.pk:
        raise Conflict(
            f"you made rollout {rollout.pk}, so a second person must approve it",
            remedy="Ask another operator, or clone it with require_approval off.",
        )
    return _verb(user, rollout, "approve", "approve", because(f"approved; {_when(rollout)}", note))


def pause(user: Caller, rollout: Rollout, *, note: str = "") -> Rollout:
    """Ask nobody else for now; deliveries at work go on to their end."""
    return _verb(user, rollout, "pause", "pause", because("paused by hand", note))


def resume(user: Caller, rollout: Rollout, *, note: str = "") -> Rollout:
    """Go on after a pause."""
    return _verb(user, rollout, "resume", "resume", because("resumed by hand", note))


def advance(
    user: Caller, rollout: Rollout, *, now: datetime, wave: int | None = None, note: str = ""
) -> Rollout:
    """Open the next wave now: a person decides where the gate held, or does not wait for the rest of the soak.

    `wave` is the number of the wave the person saw: when that one has passed meanwhile, nothing happens.
    """
    require(user, Role.OPERATOR)
    with transaction.atomic():
        _lock(rollout)
        if wave is not None and rollout.waves.filter(number=wave, state=Wave.State.PASSED).exists():
            return rollout
        waiting = rollout.waves.filter(state__in=(Wave.State.HELD, Wave.State.SOAKING)).first()
        if waiting is None or rollout.state not in (Rollout.State.RUNNING, Rollout.State.HELD):
            raise _not_now(rollout, "advanced", "a wave must be held or soaking")
        if wave not in (None, waiting.number):
            raise _not_now(rollout, "advanced", f"wave {waiting.number} is {waiting.state}, not wave {wave}")
        if rollout.state == Rollout.State.HELD:
            states.advance(rollout, "advance", reason="")
        if states.advance(waiting, "pass", finished_at=now):
            sentence = because(f"wave {waiting.number} was passed by hand", note)
            engine.note(rollout, "advance", sentence, waiting, decided_by_id=user.pk)
    return rollout


def abort(
    user: Caller, rollout: Rollout, mode: Literal["keep", "revert"], *, now: datetime, note: str = ""
) -> Rollout:
    """Stop for good. keep: devices that have it keep it, all others stay as they were; revert: everybody goes back."""
    if mode == "revert" and rollout.started_at is not None:
        return roll_back(user, rollout, now=now, note=note)
    require(user, Role.OPERATOR)
    began = "aborted by hand; devices that have it keep it"
    with transaction.atomic():
        _lock(rollout)
        sentence = because(began if rollout.started_at else "aborted before it started", note)
        done = engine.stop(rollout, sentence, now, decided_by_id=user.pk)
        if not done and rollout.state != Rollout.State.ABORTED:
            raise _not_now(rollout, "aborted")
    return rollout


def roll_back(
    user: Caller, rollout: Rollout, *, now: datetime, part: Part | None = None, note: str = ""
) -> Rollout:
    """Bring every device that was asked back to what it ran before, or a part of them; those away when they return."""
    require(user, Role.OPERATOR)
    if rollout.started_at is None:
        raise _not_now(rollout, "rolled back", "no device was asked yet")
    if part is not None and not part.is_everything:
        return _roll_back_part(user, rollout, part, now, note)
    sentence = because("rolled back by hand", note)
    with transaction.atomic():
        _lock(rollout)
        if engine.begin_way_back(rollout, sentence, now):
            engine.note(rollout, "roll_back", sentence, decided_by_id=user.pk)
        elif rollout.state not in _GOING_BACK:
            raise _not_now(rollout, "rolled back")
    return rollout


def retry(user: Caller, rollout: Rollout, *, now: datetime, note: str = "") -> Rollout:
    """Ask devices again whose delivery failed or timed out; pressed twice, each is asked once."""
    require(user, Role.OPERATOR)
    with transaction.atomic():
        _lock(rollout)
        asked = retries.try_failed_again(rollout, now)
        if asked is None:
            raise _not_now(rollout, "tried again", "clone it instead")
        if asked:
            sentence = because(f"{_devices(asked)} asked again", note)
            engine.note(rollout, "retry", sentence, decided_by_id=user.pk)
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
    if rollout.started_at is None:
        verbs.discard("roll-back")
    if rollout.state in states.UNSTARTED:
        verbs.add("schedule")
    if retries.failed(rollout).exists():
        verbs.add("retry")
    if rollout.waves.filter(state=Wave.State.SOAKING).exists() and rollout.state == Rollout.State.RUNNING:
        verbs.add("advance")
    return [verb for verb in VERBS if verb in verbs]


def exposed(rollout: Rollout) -> int:
    """How many devices ran the version, if only on trial."""
    if shadows.is_shadow(rollout):
        return 0  # it answered nobody
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL)
    lines = installs.values_list("state", "history")
    ran = (Delivery.State.TRIAL, Delivery.State.SUCCEEDED, Delivery.State.ROLLED_BACK)
    return sum(state in ran or any(line.get("state") in ran for line in history) for state, history in lines)


def order_for(
    version: ModelVersion, group: DeviceGroup, app: str, rules: strategy.Strategy
) -> preparation.Order:
    """What shall go to whom, when the version may go anywhere at all; raises Conflict or Refused."""
    if version.recalled_at is not None:
        raise Conflict(
            f"{version} was recalled and may run nowhere any more: {version.recall_reason}",
            remedy="Roll out another version.",
        )
    if version.state != ModelVersion.State.READY:
        raise Conflict(
            f"{version} is {version.state} and cannot be rolled out",
            remedy="Wait for its check, or upload it again.",
        )
    if not protocol.is_id(app):
        raise Refused(f"'{app[:80]}' is no app name", remedy="Use letters, digits, hyphen and underscore.")
    return preparation.Order(version, group, app, rules)


def _verb(user: Caller, rollout: Rollout, event: str, verb: str, sentence: str) -> Rollout:
    """One change of state; pressing the same button twice is no error."""
    require(user, Role.OPERATOR)
    with transaction.atomic():
        _lock(rollout)
        if states.advance(rollout, event, reason=sentence):
            engine.note(rollout, verb, sentence, decided_by_id=user.pk)
        elif rollout.state not in states.ROLLOUT[event].values() and not _went_on(rollout, verb):
            raise _not_now(rollout, {"start": "started", "approve": "approved"}.get(verb, f"{verb}d"))
    return rollout


def _went_on(rollout: Rollout, verb: str) -> bool:
    """Whether a start or an approval was pressed before, and the scheduler has gone on from there."""
    if verb not in ("start", "approve") or rollout.state not in _FOLLOW:
        return False
    return rollout.decisions.filter(verb=verb, decided_by__isnull=False).exists()


def _lock(rollout: Rollout) -> None:
    """Of people who press at once one goes first; the others wait here and then see what it did."""
    rollout.refresh_from_db(from_queryset=Rollout.objects.select_for_update(no_key=True))


def _roll_back_part(user: Caller, rollout: Rollout, part: Part, now: datetime, note: str) -> Rollout:
    """The rollout itself goes on: only these devices go back, and those of them that wait are not asked any more."""
    chosen = part.of(rollout)
    known = set(rollout.deliveries.filter(chosen).values_list("device__name", flat=True))
    unknown = [f"{name[:64]} is not among them" for name in part.devices if name not in known]
    if not known or unknown:
        raise Refused(
            f"{len(unknown)} of the devices are not in this part of rollout {rollout.pk}"
            if known
            else f"no device of rollout {rollout.pk} is {part}",
            remedy="GET /api/v1/rollouts/ID/deliveries lists its devices.",
            problems=unknown[:50],
        )
    with transaction.atomic():
        _lock(rollout)
        if rollout.state in _GOING_BACK:
            return rollout
        waiting = deliveries.not_asked_yet(rollout).filter(chosen)
        left = deliveries.cancel(waiting, now, "this part is rolled back")
        back = deliveries.go_back(rollout, chosen, now, "this part is rolled back")
        if left or back:
            sentence = because(f"{part}: {_devices(back)} go back, {left} more are not asked", note)
            engine.note(rollout, "roll_back_part", sentence, decided_by_id=user.pk)
    return rollout


def _refuse_far_away(start_at: datetime | None) -> None:
    if start_at is not None and start_at > timezone.now() + MOST_AHEAD:
        raise Refused(
            f"{start_at:%Y-%m-%d} is more than a hundred years ahead",
            remedy="Keep a draft, and start it when its time comes.",
        )


def _made_before(user: Caller, key: str, version: ModelVersion, group: DeviceGroup) -> Rollout | None:
    made = Rollout.objects.filter(key=_key(user, key)).first() if key else None
    if made is not None and (made.version_id, made.group_id) != (version.pk, group.pk):
        raise Conflict(
            f"the key {key[:60]!r} made rollout {made.pk}, which is another order",
            remedy="Use a new key for each order.",
        )
    return made


def _key(user: Caller, key: str) -> str | None:
    if len(key) > MAX_KEY:
        raise Refused(f"the key has {len(key)} characters", remedy=f"Use at most {MAX_KEY}.")
    return f"{user.pk}:{key}" if key else None


def because(sentence: str, note: str) -> str:
    """A sentence with the note of whoever decided."""
    note = note.strip()[:MAX_NOTE]
    return f"{sentence}: {note}" if note else sentence


def _devices(number: int) -> str:
    return f"{number} device{'' if number == 1 else 's'}"


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
