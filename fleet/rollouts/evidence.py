"""What a gate looks at: each device's outcome, made from its delivery and from labelled reports of the field."""

from collections.abc import Iterable

from fleet.registry.models import Artifact
from fleet.rollouts import gates, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave
from fleet.telemetry import summaries

_STARTED = (
    Delivery.State.DOWNLOADING,
    Delivery.State.VERIFYING,
    Delivery.State.TESTING,
    Delivery.State.TRIAL,
)

# Ends that say something about the artifact; the others are our own doing.
TELLING = (
    Delivery.State.SUCCEEDED,
    Delivery.State.ROLLED_BACK,
    Delivery.State.FAILED,
    Delivery.State.REJECTED,
    Delivery.State.TIMED_OUT,
)


def gather(rollout: Rollout, wave: Wave, wave_is_over: bool) -> gates.Evidence:
    """All outcomes of a rollout so far, in the order in which they ended."""
    rules = strategy.read(rollout.strategy)
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL).select_related(
        "artifact__target", "wave"
    )
    ended = installs.filter(state__in=TELLING).order_by("finished_at", "pk")
    asked_of = installs.exclude(state__in=(Delivery.State.CANCELLED, Delivery.State.SKIPPED))
    left = asked_of.filter(state=Delivery.State.PENDING).count()
    return gates.Evidence(
        outcomes=[outcome_of(delivery, rules.trial) for delivery in ended.select_related("device")],
        wave=wave.number,
        wave_is_over=wave_is_over,
        left=left,
        proceeds_without_evidence=rules.proceeds_without_evidence(asked_of.count()),
        targets=sorted(set(asked_of.values_list("artifact__target__slug", flat=True).distinct().order_by())),
        judges_accuracy=rules.trial.min_labelled > 0,
    )


def outcome_of(delivery: Delivery, trial: strategy.TrialRules) -> gates.Outcome:
    """One device's outcome."""
    accuracy, floor = _accuracy(delivery, trial)
    return gates.Outcome(
        device=delivery.device.name,
        target=delivery.artifact.target.slug if delivery.artifact else "",
        result=_result(delivery),
        wave=delivery.wave.number if delivery.wave else 0,
        accuracy=accuracy,
        floor=floor,
    )


def take_from_the_field(wave: Wave) -> None:
    """Keep, once a device, how many labelled answers were right since its delivery began."""
    kept = wave.deliveries.filter(state=Delivery.State.SUCCEEDED, kind=Delivery.Kind.INSTALL)
    fresh = [delivery for delivery in kept.select_related("artifact") if "field" not in delivery.evidence]
    seen = summaries.labelled_by_device(_wanted(fresh))
    for delivery in fresh:
        labelled, correct = seen.get(delivery.device_id, (0, 0))
        delivery.evidence = {**delivery.evidence, "field": {"labelled": labelled, "correct": correct}}
    Delivery.objects.bulk_update(fresh, ["evidence"], batch_size=500)


def _wanted(deliveries: Iterable[Delivery]) -> list[summaries.Wanted]:
    return [
        summaries.Wanted(delivery.device_id, delivery.artifact.sha256, delivery.offered_at)
        for delivery in deliveries
        if delivery.artifact is not None and delivery.offered_at is not None
    ]


def _result(delivery: Delivery) -> str:
    if delivery.state == Delivery.State.SUCCEEDED:
        return gates.UNPROVEN if delivery.evidence.get("enough") is False else gates.KEPT
    if delivery.state == Delivery.State.ROLLED_BACK:
        return gates.WORSE
    if delivery.state == Delivery.State.TIMED_OUT and not _began(delivery):
        return gates.SILENT
    return gates.BROKEN


def _began(delivery: Delivery) -> bool:
    return any(line.get("state") in _STARTED for line in delivery.history)


def _accuracy(delivery: Delivery, trial: strategy.TrialRules) -> tuple[float | None, float | None]:
    """Share of right answers and the floor it is held against; each device is looked at once, when its part is over."""
    floor = _floor(delivery.artifact, trial)
    seen = delivery.evidence.get("field") if delivery.state == Delivery.State.SUCCEEDED else delivery.evidence
    labelled, correct = (seen or {}).get("labelled") or 0, (seen or {}).get("correct") or 0
    if floor is None or not labelled or delivery.state not in TELLING:
        return None, floor
    return correct / labelled, floor


def _floor(artifact: Artifact | None, trial: strategy.TrialRules) -> float | None:
    floor = trial.accuracy_floor
    if floor is None and artifact is not None:
        floor = artifact.accuracy_floor
    # A trial that stops early on bad luck reports too low a share, with probability alpha at most.
    return None if floor is None else floor - trial.alpha
