"""What a gate looks at: each device's outcome, from its delivery, from before, and from those held back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from fleet.registry.models import Artifact
from fleet.rollouts import gates, processes, signals, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave
from fleet.rollouts.signals import Measure

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


@dataclass(frozen=True)
class _Row:
    """What one delivery says; thousands are read at a look, so these are columns and not models."""

    pk: UUID
    device: str
    artifact: int | None
    wave: int | None
    state: str
    evidence: Mapping[str, Any]


def gather(rollout: Rollout, wave: Wave, wave_is_over: bool) -> gates.Evidence:
    """All outcomes of a rollout so far, in the order of its plan."""
    rules = strategy.read(rollout.strategy)
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL)
    # Who waits for another try, or for the next version on the way, has been asked and has not answered yet.
    between = Q(state=Delivery.State.PENDING, ticket__isnull=False)
    asked = installs.filter(Q(state__in=(*TELLING, *_AT_WORK)) | between)
    asked_of = installs.exclude(state__in=(Delivery.State.CANCELLED, Delivery.State.SKIPPED))
    left = asked_of.filter(state=Delivery.State.PENDING, ticket=None).count()
    return gates.Evidence(
        outcomes=_outcomes(rollout, asked, rules.trial),
        wave=wave.number,
        wave_is_over=wave_is_over,
        left=left,
        proceeds_without_evidence=rules.proceeds_without_evidence(asked_of.count()),
        targets=sorted(set(asked_of.values_list("artifact__target__slug", flat=True).distinct().order_by())),
        accepted=_accepted(rollout),
    )


def _outcomes(
    rollout: Rollout, asked: QuerySet[Delivery], trial: strategy.TrialRules
) -> list[processes.Outcome]:
    columns = ("pk", "device__name", "artifact_id", "wave_id", "state", "evidence")
    rows = [_Row(*row) for row in asked.order_by("position", "created_at", "pk").values_list(*columns)]
    silent = _silent(asked)
    waves = {wave.pk: wave for wave in rollout.waves.all()}
    artifacts = Artifact.objects.select_related("target").in_bulk(
        {row.artifact for row in rows if row.artifact}
    )
    targets = {pk: artifact.target.slug for pk, artifact in artifacts.items()}
    floors = {pk: _floor(artifact, trial) for pk, artifact in artifacts.items()}
    floors[None] = _floor(None, trial)
    outcomes = []
    for row in rows:
        wave = waves.get(row.wave) if row.wave else None
        outcomes.append(
            processes.Outcome(
                device=row.device,
                target=targets[row.artifact] if row.artifact else "",
                result=_result(row, silent),
                wave=wave.number if wave else 0,
                measures=_measures(row, floors[row.artifact]),
                measured=not _is_awaited(row, wave),
            )
        )
    return outcomes


def _silent(asked: QuerySet[Delivery]) -> set[UUID]:
    """Those that timed out and never began."""
    late = asked.filter(state=Delivery.State.TIMED_OUT).values_list("pk", "history")
    return {pk for pk, history in late if not _began(history)}


def _result(row: _Row, silent: set[UUID]) -> str:
    if row.state in (Delivery.State.PENDING, *_AT_WORK):
        return processes.OPEN
    if row.state == Delivery.State.SUCCEEDED:
        return processes.UNPROVEN if row.evidence.get("enough") is False else processes.KEPT
    if row.state == Delivery.State.ROLLED_BACK:
        return processes.WORSE
    return processes.SILENT if row.pk in silent else processes.BROKEN


def _began(history: Iterable[Mapping[str, Any]]) -> bool:
    return any(line.get("state") in _STARTED for line in history)


def _is_awaited(row: _Row, wave: Wave | None) -> bool:
    """Whether the field's numbers are still to come; a wave that a person passed is not waited for."""
    if row.state != Delivery.State.SUCCEEDED or "field" in row.evidence:
        return False
    return wave is None or wave.state != Wave.State.PASSED


def _measures(row: _Row, floor: float | None) -> dict[str, Measure]:
    """The device's numbers; each device is looked at once, when its part is over."""
    field: Mapping[str, Any] = row.evidence.get("field") or {}
    measures = {name: Measure(value) for name, value in field.get("differences", {}).items()}
    paired = field.get("against_hold_back", {})
    measures |= {signals.held_back_name(name): Measure(value) for name, value in paired.items()}
    seen = field if row.state == Delivery.State.SUCCEEDED else row.evidence
    labelled, correct = seen.get("labelled") or 0, seen.get("correct") or 0
    if floor is not None and labelled and row.state in TELLING:
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
