"""REST: experiments that compare two versions on random halves of a group."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Router, Schema
from ninja.pagination import paginate

from fleet.inventory import services as inventory
from fleet.rollouts import experiments, services, terms
from fleet.rollouts.api import LeftOutOut, caller
from fleet.rollouts.models import Experiment, Pair
from fleet.rollouts.steering_api import NoteIn

router = Router(tags=["experiments"])


class ExperimentIn(Schema):
    """Two versions of one model, and where they are compared."""

    model: str
    version_a: int
    version_b: int
    group: str
    app: str = "main"
    terms: Annotated[dict[str, Any], Field(description="See GET /experiments/terms-schema.")] = {}
    strategy: Annotated[dict[str, Any], Field(description="See GET /rollouts/strategy-schema.")] = {}


class PreviewOut(Schema):
    """The dry run."""

    pairs: int
    alone: int
    left_out: list[LeftOutOut]
    sentence: str


class ExperimentOut(Schema):
    """An experiment with what its pairs say so far."""

    id: int
    model: Annotated[str, Field(alias="version_a.model.slug")]
    version_a: Annotated[int, Field(alias="version_a.number")]
    version_b: Annotated[int, Field(alias="version_b.number")]
    group: Annotated[str, Field(alias="group.slug")]
    app: str
    state: str
    reason: str
    winner: str
    terms: dict[str, Any]
    strategy: dict[str, Any]
    finding: dict[str, Any]
    left_out: Annotated[list[LeftOutOut], Field(alias="dropped")]
    pairs: dict[str, int]
    rollouts: dict[str, int]
    promotion: Annotated[int | None, Field(alias="promotion_id")]
    verbs: list[str]
    created_at: datetime
    finished_at: datetime | None

    @staticmethod
    def resolve_pairs(experiment: Experiment) -> dict[str, int]:
        """How many, by state."""
        return dict(experiment.pairs.order_by().values_list("state").annotate(Count("pk")))

    @staticmethod
    def resolve_rollouts(experiment: Experiment) -> dict[str, int]:
        """The rollout of each half that needed one."""
        return dict(experiment.rollouts.values_list("side", "pk"))

    @staticmethod
    def resolve_verbs(experiment: Experiment) -> list[str]:
        """Verbs that make sense now."""
        return experiments.possible_verbs(experiment)


class PairOut(Schema):
    """Two devices that are compared; a value is the metric on one of them."""

    number: int
    state: str
    device_a: Annotated[str | None, Field(alias="device_a.name")] = None
    device_b: Annotated[str | None, Field(alias="device_b.name")] = None
    since: datetime | None
    value_a: float | None
    value_b: float | None
    lost: str
    reason: str


class PromoteIn(NoteIn):
    """Which version goes to the whole group."""

    side: Literal["a", "b"]


class StopIn(NoteIn):
    """What becomes of devices that have another version than before."""

    mode: Literal["keep", "revert"] = "keep"


def ordered(payload: ExperimentIn) -> experiments.Order:
    """The order that a request names."""
    return experiments.order_of(
        version_a=services.version_of(payload.model, payload.version_a),
        version_b=services.version_of(payload.model, payload.version_b),
        group=inventory.group_named(payload.group),
        app=payload.app,
        rules=payload.strategy,
        wanted=payload.terms,
    )


@router.get("/experiments/terms-schema", response=dict[str, Any])
def terms_schema(request: HttpRequest) -> dict[str, Any]:
    """JSON schema of an experiment's terms."""
    return terms.Terms.model_json_schema()


@router.post("/experiments/plan", response=PreviewOut)
def plan(request: HttpRequest, payload: ExperimentIn) -> experiments.Preview:
    """The dry run: how many pairs, who is in neither half and why, and what that can show."""
    return experiments.preview(caller(request), ordered(payload))


@router.post("/experiments", response={201: ExperimentOut})
def create(request: HttpRequest, payload: ExperimentIn) -> tuple[int, Experiment]:
    """Toss, and start: each half gets its version by a rollout of its own."""
    return 201, experiments.create(caller(request), ordered(payload), timezone.now())


@router.get("/experiments", response=list[ExperimentOut])
@paginate
def list_experiments(request: HttpRequest, state: str = "") -> QuerySet[Experiment]:
    """Experiments, newest first."""
    found = Experiment.objects.select_related("version_a__model", "version_b", "group")
    return found.filter(state=state) if state else found


@router.get("/experiments/{experiment_id}", response=ExperimentOut)
def get(request: HttpRequest, experiment_id: int) -> Experiment:
    """One experiment."""
    return experiments.by_id(experiment_id)


@router.get("/experiments/{experiment_id}/pairs", response=list[PairOut])
@paginate
def list_pairs(request: HttpRequest, experiment_id: int) -> QuerySet[Pair]:
    """The pairs of an experiment."""
    return experiments.by_id(experiment_id).pairs.select_related("device_a", "device_b")


@router.post("/experiments/{experiment_id}/promote", response=ExperimentOut)
def promote(request: HttpRequest, experiment_id: int, payload: PromoteIn) -> Experiment:
    """Bring one version to the whole group by a rollout of its own."""
    found = experiments.by_id(experiment_id)
    return experiments.promote(caller(request), found, payload.side, timezone.now(), note=payload.note)


@router.post("/experiments/{experiment_id}/stop", response=ExperimentOut)
def stop(request: HttpRequest, experiment_id: int, payload: StopIn) -> Experiment:
    """End it without a winner."""
    found = experiments.by_id(experiment_id)
    return experiments.stop(caller(request), found, payload.mode, timezone.now(), note=payload.note)
