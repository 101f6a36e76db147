"""What the field says of devices that kept a version: each compared with itself before, and with those held back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fleet.rollouts import changes, held_back, shadows
from fleet.rollouts.models import Delivery, Rollout, Wave
from fleet.telemetry import comparisons

# Devices of which reports are read at a time, so that a tick stays short whatever the wave; more come with the next.
AT_ONCE = 100


def take(wave: Wave) -> int:
    """Keep, once a device, how it does since its delivery began compared with before; some at a time, and how many."""
    rollout = wave.rollout
    kept = wave.deliveries.filter(state=Delivery.State.SUCCEEDED, kind=Delivery.Kind.INSTALL)
    waiting = kept.exclude(evidence__has_key="field").order_by("position", "created_at", "pk")
    fresh = list(waiting.select_related("artifact", "previous", "rollout")[:AT_ONCE])
    for delivery, facts in zip(fresh, _facts_of_all(rollout, fresh), strict=True):
        delivery.evidence = {**delivery.evidence, "field": facts}
    if rollout.held_back and not shadows.is_shadow(rollout):
        held_back.pair(rollout, fresh)
    Delivery.objects.bulk_update(fresh, ["evidence"], batch_size=500)
    return len(fresh)


def _facts_of_all(rollout: Rollout, deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    """Each delivery's facts, in order."""
    if shadows.is_shadow(rollout):
        return [_facts_of_shadow(delivery.evidence) for delivery in deliveries]
    seen = comparisons.compare(rollout.app, _questions(deliveries))
    nothing = comparisons.Comparison(None, None)
    return [_facts(seen.get(delivery.device_id, nothing)) for delivery in deliveries]


def _facts_of_shadow(own: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: round(value, 5) for name, value in shadows.differences(own).items()}
    return {"labelled": own.get("labelled") or 0, "correct": own.get("correct") or 0, "differences": found}


def _questions(deliveries: Iterable[Delivery]) -> list[comparisons.Question]:
    return [
        comparisons.Question(
            delivery.device_id,
            delivery.previous.sha256 if delivery.previous else "",
            delivery.artifact.sha256,
            delivery.offered_at,
        )
        for delivery in deliveries
        if delivery.artifact is not None and delivery.offered_at is not None
    ]


def _facts(found: comparisons.Comparison) -> dict[str, Any]:
    counts = found.after.counts if found.after else None
    return {
        "labelled": counts.labelled if counts else 0,
        "correct": counts.correct if counts else 0,
        "differences": {name: round(value, 5) for name, value in changes.differences(found).items()},
    }
