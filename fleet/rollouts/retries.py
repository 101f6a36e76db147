"""Asking devices again whose delivery failed or timed out."""

from datetime import datetime, timedelta

from django.db.models import Max, QuerySet

from fleet.inventory.models import Device
from fleet.rollouts import admission, candidates, deliveries, states, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave

State = Rollout.State
_FAILED = (Delivery.State.FAILED, Delivery.State.TIMED_OUT)
# After these nobody installs anything any more; only the way back can be tried again.
_WAY_BACK_ONLY = (State.ROLLING_BACK, State.ROLLED_BACK, State.ABORTED)


def failed(rollout: Rollout) -> QuerySet[Delivery]:
    """Deliveries that may be tried again: those of devices that still take part and did not go back since."""
    wanted = Delivery.Kind.ROLL_BACK if rollout.state in _WAY_BACK_ONLY else Delivery.Kind.INSTALL
    found = rollout.deliveries.filter(state__in=_FAILED, kind=wanted, device__state=Device.State.ACTIVE)
    if wanted == Delivery.Kind.INSTALL:
        went_back = rollout.deliveries.filter(kind=Delivery.Kind.ROLL_BACK).values("device")
        found = found.exclude(device__in=went_back)
    return found


def try_failed_again(rollout: Rollout, now: datetime) -> int | None:
    """Put them back to the start; how many, or None when the rollout is in no state for it."""
    again = list(failed(rollout).select_related("device__target"))
    if rollout.state in _WAY_BACK_ONLY:
        return sum(_again(delivery, now) for delivery in again)
    if rollout.state in states.NOBODY_ASKED:
        return None
    taken = candidates.busy(rollout.app)
    free = [d for d in again if taken.get(d.device_id, (rollout.pk, 0))[0] == rollout.pk]
    if not free:
        return 0
    wave = _wave_for(rollout)
    done = sum(_again(delivery, now, wave=wave) for delivery in free)
    if done:
        states.advance(rollout, "retry", reason="", finished_at=None)
        states.advance(wave, "extend")
    return done


def go_on(rollout: Rollout, now: datetime) -> int:
    """On its own: the next version to pass through, and another try after a wait; how many began again."""
    running = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL, wave__state=Wave.State.RUNNING)
    onward = running.filter(state=Delivery.State.SUCCEEDED).exclude(hops=[]).select_related("device")
    work = sum(_next_version(delivery, now) for delivery in onward[: deliveries.MOST_A_TICK])
    rules = strategy.read(rollout.strategy)
    if rules.retry.attempts > 1:
        again = running.filter(state__in=_FAILED, tries__lt=rules.retry.attempts - 1).select_related("device")
        work += sum(_later(delivery, rules, now) for delivery in again[: deliveries.MOST_A_TICK])
    return work


def _next_version(delivery: Delivery, now: datetime) -> bool:
    artifact, *hops = delivery.hops
    return deliveries.try_again(
        delivery, "requeue", now, "passed through a version on the way", artifact_id=artifact, hops=hops
    )


def _later(delivery: Delivery, rules: strategy.Strategy, now: datetime) -> bool:
    wait = admission.wait_before_try(rules, delivery.tries)
    return deliveries.try_again(
        delivery,
        "retry",
        now,
        f"{delivery.reason or delivery.state}; tried again in {wait} s",
        tries=delivery.tries + 1,
        not_before=now + timedelta(seconds=wait),
    )


def _again(delivery: Delivery, now: datetime, **fields: object) -> bool:
    return deliveries.try_again(delivery, "retry", now, "asked again by hand", **fields)


def _wave_for(rollout: Rollout) -> Wave:
    """The wave that is under way, or a new one behind those that have passed."""
    open_one = rollout.waves.exclude(state=Wave.State.PASSED).order_by("number").first()
    if open_one is not None:
        return open_one
    last = rollout.waves.aggregate(last=Max("number"))["last"] or 0
    return Wave.objects.create(rollout=rollout, number=last + 1)
