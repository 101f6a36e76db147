"""Deliveries: offered a few at a time, moved by what devices say, and always brought to an end."""

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet

from fleet import events
from fleet.inventory.models import Device, DeviceApp
from fleet.rollouts import eligibility, intents, states, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave

OFFERED_AT_ONCE = 100
# A tick ends well within its time limit; what is left over comes with the next one, a second later.
MOST_A_TICK = 200
MAX_HISTORY = 60

State = Delivery.State


def move(delivery: Delivery, event: str, now: datetime, reason: str = "", **fields: Any) -> bool:
    """Change a delivery's state as its table allows, with a line of history; False when it may not or is too late."""
    new = states.DELIVERY[event].get(delivery.state)
    if new is None:
        return False
    fields |= {"changed_at": now, "history": with_note(delivery, new, now, reason)}
    if new in Delivery.ENDS:
        fields["finished_at"] = now
    # What was said on the way there is over when the new model serves, and at an end.
    if reason or new in (State.TRIAL, *Delivery.ENDS):
        fields["reason"] = reason
    if not states.advance(delivery, event, **fields):
        return False
    _tell(delivery)
    return True


def remark(delivery: Delivery, now: datetime, reason: str, **fields: Any) -> bool:
    """Keep what a device adds to a state that it told before; False when the delivery has moved on meanwhile."""
    is_news = bool(reason) and reason != delivery.reason
    if is_news:
        fields |= {"reason": reason, "history": with_note(delivery, delivery.state, now, reason)}
    done = Delivery.objects.filter(pk=delivery.pk, state=delivery.state).update(**fields) == 1
    if done and is_news:
        _tell(delivery)
    return done


def _tell(delivery: Delivery) -> None:
    events.publish(f"rollout:{delivery.rollout_id}", f"device:{delivery.device.name}", "rollouts", "overview")


def with_note(delivery: Delivery, state: str, now: datetime, reason: str) -> list[dict[str, Any]]:
    """The delivery's history with one more line; a device that never stops talking cannot make it grow for ever."""
    return [*delivery.history[: MAX_HISTORY - 1], _line(state, now, reason)]


def _line(state: str, now: datetime, reason: str) -> dict[str, Any]:
    return {"state": str(state), "at": now.isoformat(), "reason": reason}


def open_ones(rollout: Rollout) -> QuerySet[Delivery]:
    """Deliveries of a rollout that are not over."""
    return rollout.deliveries.exclude(state__in=Delivery.ENDS)


def not_asked_yet(rollout: Rollout) -> QuerySet[Delivery]:
    """Installations that nobody was offered; who waits for the way back is not among them."""
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL, state=State.PENDING)
    return installs.select_related("device")


def offer(waiting: QuerySet[Delivery], now: datetime, at_most: int | None = None) -> int:
    """Sign and send out pending deliveries, some at a time and `at_most` in all; returns how many went."""
    most = MOST_A_TICK if at_most is None else min(at_most, MOST_A_TICK)
    done = 0
    while done < most:
        wanted = min(OFFERED_AT_ONCE, most - done)
        batch = _offer_some(waiting, now, wanted)
        done += batch
        if batch < wanted:
            break
    return done


@transaction.atomic
def _offer_some(waiting: QuerySet[Delivery], now: datetime, most: int) -> int:
    pending = waiting.filter(state=State.PENDING).order_by("position", "pk")
    lock_devices(pending.filter(pk__in=list(pending.values_list("pk", flat=True)[:most])))
    # Of two ticks at once the second waits here, and then finds that these are no longer pending.
    locked = pending.select_for_update(of=("self",))
    taken = list(locked.select_related(*intents.RELATED)[:most])
    batch = _sort_out(taken, now)
    if not batch:
        return len(taken)
    _end_rivals(batch, now)
    _note_what_runs(batch)
    intents.issue(batch, now)
    _mark_offered([delivery for delivery in batch if delivery.artifact is not None], now)
    # Without an artifact there is nothing to wait for: the broker forgets what was desired, and that is all.
    for delivery in batch:
        if delivery.artifact is None:
            move(delivery, "skip", now, "nothing ran before, so the offer was withdrawn", offered_at=now)
    return len(taken)


def _mark_offered(batch: Sequence[Delivery], now: datetime) -> None:
    """One UPDATE for all with the same past, so that a tick sends as many statements for thousands as for a few."""
    alike: dict[str, list[Delivery]] = {}
    for delivery in batch:
        alike.setdefault(json.dumps(delivery.history), []).append(delivery)
    for group in alike.values():
        history = with_note(group[0], State.OFFERED, now, "")
        waiting = Delivery.objects.filter(pk__in=[delivery.pk for delivery in group], state=State.PENDING)
        waiting.update(state=State.OFFERED, offered_at=now, changed_at=now, history=history)
    names = [f"device:{delivery.device.name}" for delivery in batch]
    if batch:
        events.publish(f"rollout:{batch[0].rollout_id}", *names, "rollouts", "overview")


def _sort_out(batch: list[Delivery], now: datetime) -> list[Delivery]:
    """Those of the batch that may still have their offer; the others end with the reason, or get another artifact."""
    kept = []
    for delivery, finding in eligibility.examine(batch):
        if finding.obstacle:
            move(delivery, "skip", now, finding.obstacle)
            continue
        if finding.artifact != delivery.artifact:
            delivery.artifact, delivery.hops, delivery.why = finding.artifact, [*finding.hops], [*finding.why]
            delivery.save(update_fields=["artifact", "hops", "why"])
        kept.append(delivery)
    return kept


def _end_rivals(batch: list[Delivery], now: datetime) -> None:
    """A device never has two deliveries of one app at once: the newest signed intent wins.

    What an earlier rollout has still in mind for the device ends as well, or its next try would come after ours.
    """
    rollout = batch[0].rollout
    earlier = Q(rollout__started_at__lt=rollout.started_at)
    earlier |= Q(rollout__started_at=rollout.started_at, rollout__lt=rollout.pk)
    rivals = Delivery.objects.filter(
        Q(state__in=states.ACTIVE) | Q(state=State.PENDING) & earlier,
        device__in=[delivery.device_id for delivery in batch],
        rollout__app=rollout.app,
    )
    for rival in rivals.exclude(pk__in=[delivery.pk for delivery in batch]).select_related("device"):
        move(rival, "supersede", now, "a newer intent for this device took its place")


def _note_what_runs(batch: list[Delivery]) -> None:
    """Keep what each device runs now, to go back to it."""
    rollout = batch[0].rollout
    rows = DeviceApp.objects.filter(app=rollout.app, device__in=[delivery.device_id for delivery in batch])
    runs = {row.device_id: row.artifact for row in rows.select_related("artifact__version")}
    on_the_way = strategy.read(rollout.strategy).who.must_pass_through
    changed = [d for d in batch if d.kind == Delivery.Kind.INSTALL]
    for delivery in changed:
        present = runs.get(delivery.device_id)
        # A further try may find the new artifact installed, unheard of, or the version before it on the way: what ran
        # before is known from the first.
        passing = present is not None and delivery.ticket is not None and present.version.number in on_the_way
        if not passing and (present is None or present.pk != delivery.artifact_id):
            delivery.previous = present
    # Most run the same: an UPDATE for each artifact, not a case for each device.
    for previous in {delivery.previous_id for delivery in changed}:
        same = [delivery.pk for delivery in changed if delivery.previous_id == previous]
        Delivery.objects.filter(pk__in=same).update(previous=previous)


def lock_devices(of: QuerySet[Delivery]) -> None:
    """Wait for what the gateway writes about these devices: like it, take devices first and deliveries after them."""
    devices = Device.objects.select_for_update().filter(pk__in=of.order_by().values("device"))
    list(devices.order_by("pk").values_list("pk"))


def time_out(rollout: Rollout, now: datetime) -> int:
    """End deliveries that took too long; returns how many."""
    rules = strategy.read(rollout.strategy)
    whole, steps = rules.delivery_timeout_s, rules.step_timeouts.by_state()
    forgotten, event = states.LIMITS[State.PENDING]
    late = Q(state__in=states.ACTIVE, offered_at__lte=now - timedelta(seconds=whole))
    late |= Q(state=State.PENDING, wave__started_at__lte=now - forgotten, changed_at__lte=now - forgotten)
    for state, seconds in steps.items():
        late |= Q(state=state, changed_at__lte=now - timedelta(seconds=seconds))
    unanswered = rules.step_timeouts.consent
    if unanswered is not None:
        asked = Q(state=State.PENDING, consent=Delivery.Consent.WANTED)
        since = now - timedelta(seconds=unanswered)
        late |= asked & Q(wave__started_at__lte=since, changed_at__lte=since)
    done = 0
    for delivery in rollout.deliveries.filter(late).select_related("device")[:MOST_A_TICK]:
        # Who only waited has not failed, and would wait as long again: a person may ask once more.
        spent = {"tries": rules.retry.attempts} if delivery.state == State.PENDING else {}
        done += move(delivery, event, now, _too_late(delivery, rules), **spent)
    return done


def _too_late(delivery: Delivery, rules: strategy.Strategy) -> str:
    if delivery.state != State.PENDING:
        whole = rules.delivery_timeout_s
        limit = min(whole, rules.step_timeouts.by_state().get(delivery.state, whole))
        return f"no end after {limit} s in state {delivery.state}"
    if delivery.consent == Delivery.Consent.WANTED and rules.step_timeouts.consent is not None:
        return f"its owner did not answer within {rules.step_timeouts.consent} s"
    return f"no end after {states.LIMITS[State.PENDING][0].days} days in state {delivery.state}"


def end_for_lost_devices(rollout: Rollout, now: datetime) -> int:
    """End deliveries to devices that were revoked or retired meanwhile; returns how many."""
    lost = open_ones(rollout).exclude(device__state=Device.State.ACTIVE).select_related("device")
    return cancel(lost[:MOST_A_TICK], now, lambda delivery: f"{delivery.device} was {delivery.device.state}")


def send_again_to_changed_devices(rollout: Rollout, now: datetime) -> int:
    """Begin again where a device became another target meanwhile; the next offer finds the artifact that fits it now."""
    at_work = rollout.deliveries.filter(state__in=states.ACTIVE, artifact__isnull=False)
    changed = at_work.exclude(artifact__target=F("device__target")).select_related("device__target")
    return sum(
        try_again(delivery, "requeue", now, f"{delivery.device} is a {delivery.device.target} now")
        for delivery in changed[:MOST_A_TICK]
    )


def try_again(delivery: Delivery, event: str, now: datetime, reason: str, **fields: Any) -> bool:
    """Put a delivery back to the start under a new id, so that late words about the old try change nothing."""
    fresh: dict[str, Any] = {
        "ticket": uuid.uuid4(),
        "finished_at": None,
        "attempt": 1,
        "evidence": {},
    }
    return move(delivery, event, now, reason, **fresh, **fields)


def cancel(deliveries: Iterable[Delivery], now: datetime, reason: Any) -> int:
    """End deliveries; `reason` is a sentence, or a function that makes one of a delivery."""
    done = 0
    for delivery in deliveries:
        done += move(delivery, "cancel", now, reason(delivery) if callable(reason) else reason)
    return done


def cancel_pending(rollout: Rollout, now: datetime, reason: str) -> int:
    """End installations that nobody was asked for, thousands with one statement; those tried before some at a time."""
    waiting = not_asked_yet(rollout)
    untouched = waiting.select_related(None).filter(history=[])
    lock_devices(untouched)
    names = [f"device:{name}" for name in untouched.order_by().values_list("device__name", flat=True)]
    ended = {"state": State.CANCELLED, "reason": reason, "changed_at": now, "finished_at": now}
    done = untouched.update(history=[_line(State.CANCELLED, now, reason)], **ended)
    events.publish(*names)
    return done + cancel(waiting.exclude(history=[])[:MOST_A_TICK], now, reason)


def extend(wave: Wave, by: int) -> int:
    """Move pending deliveries of later waves into this one; returns how many."""
    later = Delivery.objects.filter(
        rollout=wave.rollout_id, kind=Delivery.Kind.INSTALL, state=State.PENDING, wave__number__gt=wave.number
    )
    chosen = list(later.order_by("wave__number", "position", "pk").values_list("pk", flat=True)[:by])
    return Delivery.objects.filter(pk__in=chosen, state=State.PENDING).update(wave=wave)


def go_back(rollout: Rollout, which: Q, now: datetime, reason: str, at_most: int | None = None) -> int:
    """Give every chosen device that was ever offered this rollout a way back, or some of them; the tick signs and sends it.

    Devices that a later rollout has reached since belong to that one, and who is on the way back stays on it.
    """
    if rollout.started_at is None:
        return 0
    installs = rollout.deliveries.filter(which, kind=Delivery.Kind.INSTALL, offered_at__isnull=False)
    returning = rollout.deliveries.filter(kind=Delivery.Kind.ROLL_BACK)
    installs = installs.filter(device__state=Device.State.ACTIVE).order_by("position", "pk")
    installs = installs.exclude(device__in=returning.values("device"))
    installs = installs.exclude(device__in=_taken_over(rollout))
    keys = list(installs.values_list("pk", flat=True)[:at_most])
    chosen = Delivery.objects.filter(pk__in=keys).order_by("position", "pk")
    lock_devices(chosen)
    # Of two who do this at once the second waits for the devices, and then finds who is on the way back already.
    found = list(chosen.exclude(device__in=returning.values("device")).select_related("device"))
    for delivery in found:
        move(delivery, "supersede", now, reason)
    back = [_way_back(delivery) for delivery in found]
    Delivery.objects.bulk_create(back, ignore_conflicts=True)
    return len(back)


def _taken_over(rollout: Rollout) -> QuerySet[Delivery, Any]:
    """Keys of devices that a later rollout of the app has reached."""
    began = rollout.started_at
    later = Delivery.objects.filter(rollout__app=rollout.app, offered_at__gt=began).exclude(rollout=rollout)
    return later.filter(rollout__started_at__gt=began).order_by().values("device")


def _way_back(delivery: Delivery) -> Delivery:
    return Delivery(
        rollout_id=delivery.rollout_id,
        wave_id=delivery.wave_id,
        device=delivery.device,
        kind=Delivery.Kind.ROLL_BACK,
        artifact_id=delivery.previous_id,
        previous_id=delivery.artifact_id,
    )
