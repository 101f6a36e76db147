"""Offers to devices, as far as windows, consent, rates and budgets allow at this moment."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet, Sum

from fleet.registry import offers as blobs
from fleet.registry.models import Artifact
from fleet.rollouts import admission, deliveries, states, strategy
from fleet.rollouts.conditions import A_DAY, Rate
from fleet.rollouts.models import Delivery, Rollout, Sending, Wave

# An offer may be fetched as long as its delivery lasts, and counts from then on.
_KEPT = timedelta(days=31)
_State = Delivery.State
_FETCHING = (_State.DOWNLOADING, _State.VERIFYING, _State.TESTING)


def offer(rollout: Rollout, installs: QuerySet[Delivery], now: datetime, at_most: int | None = None) -> int:
    """Sign and send out the pending ones that may go now, `at_most` in all; returns how many went."""
    rules = strategy.read(rollout.strategy)
    with transaction.atomic():
        # Two ticks at once would spend a budget or a minute's rate twice: one waits here, and counts again.
        list(_all_at_work().select_for_update().order_by("pk").values_list("pk"))
        most = _most(rollout, rules, now, at_most)
        found = admission.admit(_waiting(rollout, installs), rules, _spent(now), now, most, and_why=False)
        keys = [each.key for each in found.chosen]
        done = deliveries.offer(installs.filter(pk__in=keys), now, at_most=len(keys)) if keys else 0
        Sending.objects.bulk_create(
            Sending(device_id=e.device, delivery_id=e.key, site=e.site, bytes=e.bytes, at=now)
            for e in found.chosen[:done]
        )
    return done


def why_waiting(rollout: Rollout, now: datetime) -> str:
    """What the pending devices of the wave under way wait for; '' when nothing but their turn keeps them."""
    if rollout.state == Rollout.State.STARTING:
        return f"the plan is being written, {rollout.deliveries.count()} devices so far"
    wave = rollout.waves.filter(state=Wave.State.RUNNING).order_by("number").first()
    if wave is None or rollout.state != Rollout.State.RUNNING:
        return ""
    installs = wave.deliveries.filter(kind=Delivery.Kind.INSTALL)
    return admission.admit(
        _waiting(rollout, installs), strategy.read(rollout.strategy), _spent(now), now
    ).sentence


def forget(now: datetime) -> int:
    """Delete what no budget counts any more; returns how many."""
    return Sending.objects.filter(at__lt=now - _KEPT).delete()[0]


def heard(delivery: Delivery, state: str, now: datetime) -> None:
    """Count the bytes of an offer from when its device fetched them: it may have been away for days."""
    if state in _FETCHING and delivery.offered_at is not None:
        Sending.objects.filter(delivery=delivery, at__gte=delivery.offered_at).update(at=now)


def _all_at_work() -> QuerySet[Rollout]:
    return Rollout.objects.filter(state=Rollout.State.RUNNING)


def _waiting(rollout: Rollout, installs: QuerySet[Delivery]) -> Iterator[admission.Waiting]:
    """Pending deliveries in the order of the plan, read a few hundred at a time."""
    columns = ("pk", "device_id", "artifact_id", "site", "zone", "consent", "not_before", "byte_budget")
    pending = installs.filter(state=_State.PENDING)
    rows = pending.order_by("position", "pk").values_list(*columns, named=True)
    artifacts = Artifact.objects.filter(pk__in=pending.order_by().values("artifact")).in_bulk()
    sizes = {pk: blobs.bytes_to_install(artifact) for pk, artifact in artifacts.items()}
    taken = _at_work_elsewhere(rollout)
    for row in rows.iterator(chunk_size=500):
        yield admission.Waiting(
            row.pk,
            row.device_id,
            sizes.get(row.artifact_id, 0),
            row.site,
            row.zone,
            row.consent,
            row.not_before,
            row.byte_budget,
            row.device_id in taken,
        )


def _at_work_elsewhere(rollout: Rollout) -> set[int]:
    """Devices that install something for another app: never two at once on a device."""
    others = Delivery.objects.filter(state__in=states.ACTIVE).exclude(rollout__app=rollout.app)
    return set(others.values_list("device_id", flat=True))


def _spent(now: datetime) -> admission.Spent:
    recent = Sending.objects.filter(at__gt=now - A_DAY).order_by()
    return admission.Spent(
        dict(recent.values_list("device_id").annotate(Sum("bytes"))),
        dict(recent.values_list("site").annotate(Sum("bytes"))),
    )


def _most(rollout: Rollout, rules: strategy.Strategy, now: datetime, at_most: int | None) -> int:
    limits = [deliveries.MOST_A_TICK, at_most, _left_this_minute(rollout, rules.rate, now)]
    return min(limit for limit in limits if limit is not None)


def _left_this_minute(rollout: Rollout, rate: Rate | None, now: datetime) -> int | None:
    if rate is None:
        return None
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL)
    succeeded = installs.filter(state=_State.SUCCEEDED).count()
    asked = installs.filter(offered_at__gt=now - timedelta(minutes=1)).count()
    return max(0, admission.rate_now(rate, succeeded) - asked)
