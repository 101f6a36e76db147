"""What a gate looks at: each device's outcome, from its delivery, from before, and from those held back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db.models import Q

from fleet.registry.models import Artifact
from fleet.rollouts import changes, gates, held_back, processes, shadows, signals, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave
from fleet.rollouts.signals import Measure
from fleet.telemetry import comparisons

_STARTED = (
    Delivery.State.DOWNLOADING,
    Delivery.State.VERIFYING,
    Delivery.State.TESTING,
    Delivery.State.TRIAL,
)
_AT_WORK = (Delivery.State.OFFERED, *_STARTED)

# Ends that say something about the artifact; the others are our own doing.
TELLING = (
    Delivery.State.SUCCEEDED,
    Delivery.State.ROLLED_BACK,
    Delivery.State.FAILED,
    Delivery.State.REJECTED,
    Delivery.State.TIMED_OUT,
)


def gather(rollout: Rollout, wave: Wave, wave_is_over: bool) -> gates.Evidence:
    """All outcomes of a rollout so far, in the order of its plan."""
    rules = strategy.read(rollout.strategy)
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL)
    # Who waits for another try, or for the next version on the way, has been asked and has not answered yet.
    between = Q(state=Delivery.State.PENDING, ticket__isnull=False)
    asked = installs.filter(Q(state__in=(*TELLING, *_AT_WORK)) | between)
    asked = asked.order_by("position", "created_at", "pk")
    asked_of = installs.exclude(state__in=(Delivery.State.CANCELLED, Delivery.State.SKIPPED))
    left = asked_of.filter(state=Delivery.State.PENDING, ticket=None).count()
    rows = asked.select_related("artifact__target", "wave", "device")
    return gates.Evidence(
        outcomes=[outcome_of(delivery, rules.trial) for delivery in rows],
        wave=wave.number,
        wave_is_over=wave_is_over,
        left=left,
        proceeds_without_evidence=rules.proceeds_without_evidence(asked_of.count()),
        targets=sorted(set(asked_of.values_list("artifact__target__slug", flat=True).distinct().order_by())),
        accepted=_accepted(rollout),
    )


def outcome_of(delivery: Delivery, trial: strategy.TrialRules) -> processes.Outcome:
    """One device's outcome."""
    return processes.Outcome(
        device=delivery.device.name,
        target=delivery.artifact.target.slug if delivery.artifact else "",
        result=_result(delivery),
        wave=delivery.wave.number if delivery.wave else 0,
        measures=_measures(delivery, trial),
        measured=not _is_awaited(delivery),
    )


def take_from_the_field(wave: Wave) -> None:
    """Keep, once a device, how it does since its delivery began compared with before."""
    rollout = wave.rollout
    kept = wave.deliveries.filter(state=Delivery.State.SUCCEEDED, kind=Delivery.Kind.INSTALL)
    rows = kept.select_related("artifact", "previous", "rollout").order_by("position", "created_at", "pk")
    fresh = [delivery for delivery in rows if "field" not in delivery.evidence]
    for delivery, facts in zip(fresh, _field(rollout, fresh), strict=True):
        delivery.evidence = {**delivery.evidence, "field": facts}
    if rollout.held_back and not shadows.is_shadow(rollout):
        held_back.pair(rollout, fresh)
    Delivery.objects.bulk_update(fresh, ["evidence"], batch_size=500)


def _field(rollout: Rollout, deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
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


def _result(delivery: Delivery) -> str:
    if delivery.state in (Delivery.State.PENDING, *_AT_WORK):
        return processes.OPEN
    if delivery.state == Delivery.State.SUCCEEDED:
        return processes.UNPROVEN if delivery.evidence.get("enough") is False else processes.KEPT
    if delivery.state == Delivery.State.ROLLED_BACK:
        return processes.WORSE
    if delivery.state == Delivery.State.TIMED_OUT and not _began(delivery):
        return processes.SILENT
    return processes.BROKEN


def _began(delivery: Delivery) -> bool:
    return any(line.get("state") in _STARTED for line in delivery.history)


def _is_awaited(delivery: Delivery) -> bool:
    """Whether the field's numbers are still to come; a wave that a person passed is not waited for."""
    if delivery.state != Delivery.State.SUCCEEDED or "field" in delivery.evidence:
        return False
    return delivery.wave is None or delivery.wave.state != Wave.State.PASSED


def _measures(delivery: Delivery, trial: strategy.TrialRules) -> dict[str, Measure]:
    """The device's numbers; each device is looked at once, when its part is over."""
    field: Mapping[str, Any] = delivery.evidence.get("field") or {}
    measures = {name: Measure(value) for name, value in field.get("differences", {}).items()}
    paired = field.get("against_hold_back", {})
    measures |= {signals.held_back_name(name): Measure(value) for name, value in paired.items()}
    floor = _floor(delivery.artifact, trial)
    seen = field if delivery.state == Delivery.State.SUCCEEDED else delivery.evidence
    labelled, correct = seen.get("labelled") or 0, seen.get("correct") or 0
    if floor is not None and labelled and delivery.state in TELLING:
        measures["accuracy_floor"] = signals.below_floor(correct / labelled, floor)
    return measures


def _floor(artifact: Artifact | None, trial: strategy.TrialRules) -> float | None:
    floor = trial.accuracy_floor
    if floor is None and artifact is not None:
        floor = artifact.accuracy_floor
    # A trial that stops early on bad luck reports too low a share, with probability alpha at most.
    return None if floor is None else floor - trial.alpha


def _accepted(rollout: Rollout) -> list[tuple[str, str]]:
    """What a person has looked at and let pass: what was asked when a wave was held, and was passed then."""
    held = rollout.decisions.filter(verb="hold", wave__state=Wave.State.PASSED)
    asked = [evidence.get("question") for evidence in held.values_list("evidence", flat=True)]
    return [(question[0], question[1]) for question in asked if question]
