"""Asking devices again whose delivery failed or timed out."""

from datetime import datetime

from django.db.models import Max, QuerySet

from fleet.inventory.models import Device
from fleet.rollouts import candidates, deliveries, states
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
    if rollout.state in states.UNSTARTED:
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


def _again(delivery: Delivery, now: datetime, **fields: object) -> bool:
    return deliveries.try_again(delivery, "retry", now, "asked again by hand", **fields)


def _wave_for(rollout: Rollout) -> Wave:
    """The wave that is under way, or a new one behind those that have passed."""
    open_one = rollout.waves.exclude(state=Wave.State.PASSED).order_by("number").first()
    if open_one is not None:
        return open_one
    last = rollout.waves.aggregate(last=Max("number"))["last"] or 0
    return Wave.objects.create(rollout=rollout, number=last + 1)
