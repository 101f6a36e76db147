"""REST: what a person may do to a rollout, and to a version that no device may run any more."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.http import HttpRequest
from django.utils import timezone
from ninja import Body, Field, Router, Schema
from pydantic import AwareDatetime

from fleet.registry import services as registry
from fleet.rollouts import recalls, services
from fleet.rollouts.api import RolloutDetailOut, caller
from fleet.rollouts.models import Rollout
from fleet.rollouts.parts import Part
from fleet.rollouts.recalls import StillRuns

router = Router(tags=["rollouts"])

Note = Annotated[str, Field(max_length=services.MAX_NOTE, description="Kept with the decision.")]
NOTHING: Any = Body(None)  # type: ignore[type-arg]


class NoteIn(Schema):
    """Why."""

    note: Note = ""


class AdvanceIn(NoteIn):
    """Which wave is meant: when it passed meanwhile, nothing happens."""

    wave: int | None = None


class ScheduleIn(NoteIn):
    """When it starts; null is now."""

    start_at: AwareDatetime | None = None


class AbortIn(NoteIn):
    """What becomes of devices that have the new version already."""

    mode: Literal["keep", "revert"] = "keep"


class RollBackIn(NoteIn):
    """Which part goes back; everybody when nothing is given."""

    devices: Annotated[list[str], Field(max_length=10_000)] = []
    wave: int | None = None
    target: str = ""


class CloneIn(Schema):
    """Another version, if wanted; asked for twice with one key, it is made once."""

    version: int | None = None
    key: Annotated[str, Field(max_length=services.MAX_KEY)] = ""


class RecallIn(Schema):
    """Why no device may run it any more."""

    reason: Annotated[str, Field(max_length=2000)]


class StillRunsOut(Schema):
    """One device that says it runs the version, and what becomes of that."""

    device: str
    app: str
    target: str
    since: datetime | None
    outlook: str


class RecallOut(Schema):
    """A recalled version and where it still runs."""

    model: str
    version: int
    recalled_at: datetime | None
    reason: str
    still_runs: list[StillRunsOut]


def _text(payload: NoteIn | None) -> str:
    return payload.note if payload else ""


@router.post("/rollouts/{rollout_id}/start", response=RolloutDetailOut)
def start(request: HttpRequest, rollout_id: int, payload: NoteIn | None = NOTHING) -> Rollout:
    """Start a draft, or ask for approval."""
    return services.start(caller(request), services.rollout_by_id(rollout_id), note=_text(payload))


@router.post("/rollouts/{rollout_id}/schedule", response=RolloutDetailOut)
def schedule(request: HttpRequest, rollout_id: int, payload: ScheduleIn) -> Rollout:
    """Start it at a time, or move the time."""
    rollout = services.rollout_by_id(rollout_id)
    return services.schedule(caller(request), rollout, payload.start_at, note=payload.note)


@router.post("/rollouts/{rollout_id}/approve", response=RolloutDetailOut)
def approve(request: HttpRequest, rollout_id: int, payload: NoteIn | None = NOTHING) -> Rollout:
    """Approve a rollout that waits for it."""
    return services.approve(caller(request), services.rollout_by_id(rollout_id), note=_text(payload))


@router.post("/rollouts/{rollout_id}/pause", response=RolloutDetailOut)
def pause(request: HttpRequest, rollout_id: int, payload: NoteIn | None = NOTHING) -> Rollout:
    """Ask nobody else for now."""
    return services.pause(caller(request), services.rollout_by_id(rollout_id), note=_text(payload))


@router.post("/rollouts/{rollout_id}/resume", response=RolloutDetailOut)
def resume(request: HttpRequest, rollout_id: int, payload: NoteIn | None = NOTHING) -> Rollout:
    """Go on after a pause."""
    return services.resume(caller(request), services.rollout_by_id(rollout_id), note=_text(payload))


@router.post("/rollouts/{rollout_id}/advance", response=RolloutDetailOut)
def advance(request: HttpRequest, rollout_id: int, payload: AdvanceIn | None = NOTHING) -> Rollout:
    """Open the next wave now."""
    asked = payload or AdvanceIn()
    rollout = services.rollout_by_id(rollout_id)
    return services.advance(caller(request), rollout, now=timezone.now(), wave=asked.wave, note=asked.note)


@router.post("/rollouts/{rollout_id}/abort", response=RolloutDetailOut)
def abort(request: HttpRequest, rollout_id: int, payload: AbortIn | None = NOTHING) -> Rollout:
    """Stop for good."""
    asked = payload or AbortIn()
    rollout = services.rollout_by_id(rollout_id)
    return services.abort(caller(request), rollout, asked.mode, now=timezone.now(), note=asked.note)


@router.post("/rollouts/{rollout_id}/retry", response=RolloutDetailOut)
def retry(request: HttpRequest, rollout_id: int, payload: NoteIn | None = NOTHING) -> Rollout:
    """Ask devices again whose delivery failed or timed out."""
    rollout = services.rollout_by_id(rollout_id)
    return services.retry(caller(request), rollout, now=timezone.now(), note=_text(payload))


@router.post("/rollouts/{rollout_id}/roll-back", response=RolloutDetailOut)
def roll_back(request: HttpRequest, rollout_id: int, payload: RollBackIn | None = NOTHING) -> Rollout:
    """Bring every device that was asked, or a part of them, back to what it ran before."""
    asked = payload or RollBackIn()
    part = Part(tuple(asked.devices), asked.wave, asked.target)
    rollout = services.rollout_by_id(rollout_id)
    return services.roll_back(caller(request), rollout, now=timezone.now(), part=part, note=asked.note)


@router.post("/rollouts/{rollout_id}/clone", response={201: RolloutDetailOut})
def clone(request: HttpRequest, rollout_id: int, payload: CloneIn | None = NOTHING) -> tuple[int, Rollout]:
    """A draft like this rollout."""
    asked, rollout = payload or CloneIn(), services.rollout_by_id(rollout_id)
    slug = rollout.version.model.slug
    version = None if asked.version is None else services.version_of(slug, asked.version)
    return 201, services.clone(caller(request), rollout, version=version, key=asked.key)


@router.post("/models/{slug}/versions/{number}/recall", response=RecallOut)
def recall(request: HttpRequest, slug: str, number: int, payload: RecallIn) -> dict[str, Any]:
    """Say that no device may run this version any more; devices that run it go back."""
    version = registry.get_version(slug, number)
    recalls.recall(caller(request), version, reason=payload.reason, now=timezone.now())
    return still_runs(request, slug, number)


@router.get("/models/{slug}/versions/{number}/still-runs", response=RecallOut)
def still_runs(request: HttpRequest, slug: str, number: int) -> dict[str, Any]:
    """Where a version runs, and what becomes of that."""
    version = registry.get_version(slug, number)
    rows: list[StillRuns] = recalls.still_runs(version)
    return {
        "model": slug,
        "version": number,
        "recalled_at": version.recalled_at,
        "reason": version.recall_reason,
        "still_runs": rows,
    }
