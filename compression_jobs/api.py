"""REST endpoints of compression: jobs, their candidates, and the schema of recipes."""

from datetime import datetime
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, FilterSchema, Query, Router, Schema
from ninja.pagination import paginate

from compression_jobs import services
from compression_jobs.models import Candidate, Job
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.goal import Fraction, Objective
from compression_jobs.pipeline.recipe import MAX_STEPS, recipe_schema
from fleet.accounts.roles import Role, require
from fleet.registry.services import get_dataset, get_version

router = Router(tags=["compression"])


class GoalsIn(Schema):
    """For which targets, and what must survive."""

    targets: Annotated[list[str], Field(min_length=1, max_length=services.MAX_TARGETS)]
    min_accuracy: Fraction | None = None
    max_drop: Fraction | None = None
    objective: Objective = "bytes"


class StepIn(Schema):
    """One pass of a recipe; `/recipes/schema` says which there are and what they take."""

    name: str
    options: dict[str, Any] = {}


class JobIn(Schema):
    """A new job: goals for the search, or a recipe to run as it is."""

    model: str
    version: Annotated[int, Field(ge=1)]
    dataset: int
    goals: GoalsIn
    recipe: Annotated[list[StepIn], Field(max_length=MAX_STEPS)] | None = None
    effort: Effort = Effort()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class JobOut(Schema):
    """A job: where it stands, and what it found."""

    id: int
    model: Annotated[str, Field(alias="version.model.slug")]
    version: Annotated[int, Field(alias="version.number")]
    dataset: Annotated[int, Field(alias="dataset_id")]
    targets: list[str]
    goals: dict[str, Any]
    recipe: list[dict[str, Any]] | None
    effort: dict[str, Any]
    seed: int
    state: Job.State
    reason: str
    problems: list[str]
    progress: dict[str, Any]
    results: dict[str, Any]
    sensitivity: dict[str, Any]
    cancel_requested: bool
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @staticmethod
    def resolve_targets(job: Any) -> list[str]:
        """Slugs of the targets."""
        return sorted(target.slug for target in job.targets.all())


class JobFilter(FilterSchema):
    """Which jobs."""

    state: Job.State | None = None
    model: Annotated[str | None, Field(q="version__model__slug")] = None
    version: Annotated[int | None, Field(q="version__number")] = None
    target: Annotated[str | None, Field(q="targets__slug")] = None


class CandidateOut(Schema):
    """A measured candidate; `measurements` holds all that the pipeline knows of it."""

    key: str
    target: Annotated[str, Field(alias="target.slug")]
    recipe: list[dict[str, Any]]
    sha256: str
    format: str
    bytes: int
    transport_bytes: int | None
    parameters: int | None
    macs: int | None
    peak_ram_bytes: int | None
    measurements: dict[str, Any]
    fits: bool
    on_front: bool
    rejected: str
    artifact: Annotated[int | None, Field(alias="artifact_id")]
    created_at: datetime


def _jobs() -> QuerySet[Job]:
    return Job.objects.select_related("version__model").prefetch_related("targets")


@router.post("/jobs", response={202: JobOut})
def submit_job(request: HttpRequest, payload: JobIn) -> tuple[int, Job]:
    """Submit a job; look again until its state is succeeded, failed or cancelled."""
    require(request.user, Role.ENGINEER)
    job = services.submit(
        get_version(payload.model, payload.version),
        get_dataset(payload.dataset),
        **payload.goals.model_dump(),
        recipe=None if payload.recipe is None else [step.model_dump() for step in payload.recipe],
        effort=payload.effort,
        seed=payload.seed,
        user=request.user,
    )
    return 202, _jobs().get(pk=job.pk)


@router.get("/jobs", response=list[JobOut])
@paginate
def list_jobs(request: HttpRequest, filters: Annotated[JobFilter, Query()]) -> QuerySet[Job]:
    """All jobs, newest first."""
    return filters.filter(_jobs())


@router.get("/jobs/{job_id}", response=JobOut)
def read_job(request: HttpRequest, job_id: int) -> Job:
    """One job."""
    return services.get_job(job_id)


@router.get("/jobs/{job_id}/candidates", response=list[CandidateOut])
@paginate
def list_candidates(
    request: HttpRequest, job_id: int, target: str | None = None, on_front: bool | None = None
) -> QuerySet[Candidate]:
    """What the job measured so far."""
    found = services.get_job(job_id).candidates.select_related("target").order_by("target", "id")
    wanted = {"target__slug": target, "on_front": on_front}
    return found.filter(**{name: value for name, value in wanted.items() if value is not None})


@router.post("/jobs/{job_id}/cancel", response={202: JobOut})
def cancel_job(request: HttpRequest, job_id: int) -> tuple[int, Job]:
    """Stop a job."""
    require(request.user, Role.ENGINEER)
    return 202, services.cancel(services.get_job(job_id))


@router.get("/recipes/schema", response=dict[str, Any])
def read_recipe_schema(request: HttpRequest) -> dict[str, Any]:
    """JSON schema of every pass's options."""
    return recipe_schema()
