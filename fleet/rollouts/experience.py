"""What simulations take from this fleet's own past: how long deliveries took, and how many devices are away."""

from datetime import datetime
from statistics import median

from fleet.inventory.models import Device
from fleet.rollouts import forecast, planning, simulation
from fleet.rollouts.models import Delivery
from fleet.rollouts.strategy import Strategy

REMEMBERED = 2000
NAMES_AT_ONCE = 500


def fleet_of(plan: planning.Plan, now: datetime) -> simulation.Fleet:
    """How the devices of a plan behave, as far as it is known; a delivery takes a minute where none was made."""
    return simulation.Fleet(now, _seconds(), _away([share.device for share in plan.shares]))


def outlook(plan: planning.Plan, rules: Strategy, now: datetime) -> forecast.Forecast | None:
    """Hours, and what the gates of this plan can catch."""
    return forecast.forecast(plan, fleet_of(plan, now), rules)


def _seconds() -> dict[str, float]:
    done = Delivery.objects.filter(
        kind=Delivery.Kind.INSTALL, state=Delivery.State.SUCCEEDED, offered_at__isnull=False
    )
    rows = done.order_by("-finished_at").values_list("artifact__target__slug", "offered_at", "finished_at")
    times: dict[str, list[float]] = {}
    for target, began, ended in rows[:REMEMBERED]:
        if began is not None and ended is not None:
            times.setdefault(target, []).append(max(1.0, (ended - began).total_seconds()))
    return {target: median(found) for target, found in times.items()}


def _away(names: list[str]) -> float:
    if not names:
        return 0.0
    online = sum(
        Device.objects.filter(name__in=names[start : start + NAMES_AT_ONCE], online=True).count()
        for start in range(0, len(names), NAMES_AT_ONCE)
    )
    return 1 - online / len(names)
