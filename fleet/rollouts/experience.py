"""What simulations take from this fleet's own past: how long deliveries took, how many devices are away, how much they scatter."""

from datetime import datetime
from statistics import median, stdev

from django.db.models import Count, Q, Sum

from fleet.inventory.models import Device
from fleet.rollouts import forecast, imagined, planning
from fleet.rollouts.models import Delivery
from fleet.rollouts.strategy import Strategy

REMEMBERED = 2000
NAMES_AT_ONCE = 500
# Devices of which the scatter of a measured difference can be told; it is never taken to be nothing.
ENOUGH_DEVICES = 10
LEAST_NOISE = 0.01
_FAILED = Delivery.State.FAILED


def fleet_of(plan: planning.Plan, now: datetime) -> imagined.Fleet:
    """How the devices of a plan behave, as far as it is known; a delivery takes a minute where none was made."""
    return imagined.Fleet(now, _seconds(), _away([share.device for share in plan.shares]), _noise(), _flaky())


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


def _flaky() -> float:
    """Share of tries of the last deliveries that failed without a word against the artifact."""
    done = Delivery.objects.filter(kind=Delivery.Kind.INSTALL, state__in=(Delivery.State.SUCCEEDED, _FAILED))
    last = done.order_by("-finished_at").values("pk")[:REMEMBERED]
    found = Delivery.objects.filter(pk__in=last).aggregate(
        n=Count("pk"), again=Sum("tries", default=0), failed=Count("pk", filter=Q(state=_FAILED))
    )
    if found["n"] < ENOUGH_DEVICES:
        return 0.0
    return float((found["again"] + found["failed"]) / (found["n"] + found["again"]))


def _noise() -> dict[str, float]:
    """How far devices lie from each other in what they measured, by signal, where enough did."""
    done = Delivery.objects.filter(
        kind=Delivery.Kind.INSTALL, state=Delivery.State.SUCCEEDED, evidence__has_key="field"
    )
    found: dict[str, list[float]] = {}
    for evidence in done.order_by("-finished_at").values_list("evidence", flat=True)[:REMEMBERED]:
        for name, value in evidence["field"].get("differences", {}).items():
            found.setdefault(name, []).append(value)
    enough = {name: values for name, values in found.items() if len(values) >= ENOUGH_DEVICES}
    return {name: max(LEAST_NOISE, stdev(values)) for name, values in enough.items()}


def _away(names: list[str]) -> float:
    if not names:
        return 0.0
    online = sum(
        Device.objects.filter(name__in=names[start : start + NAMES_AT_ONCE], online=True).count()
        for start in range(0, len(names), NAMES_AT_ONCE)
    )
    return 1 - online / len(names)
