"""REST: plan, create, watch and steer rollouts."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Router, Schema
from ninja.pagination import paginate
from pydantic import AwareDatetime

from fleet.inventory import services as inventory
from fleet.rollouts import consents, offering, services, shadows, strategy
from fleet.rollouts.models import Decision, Delivery, Rollout, Wave

router = Router(tags=["rollouts"])


class OrderIn(Schema):
    """What shall go to whom."""

    model: str
    version: int
    group: str
    app: str = "main"
    strategy: Annotated[dict[str, Any], Field(description="See GET /rollouts/strategy-schema.")] = {}


class RolloutIn(OrderIn):
    """A new rollout."""

    start_at: Annotated[AwareDatetime | None, Field(description="Not before then; empty: at once.")] = None
    key: Annotated[
        str, Field(max_length=services.MAX_KEY, description="Asked for twice with one key, it is made once.")
    ] = ""


class GateOut(Schema):
    """One gate of the choice of an artifact."""

    gate: str
    left: int
    sentence: str


class LeftOutOut(Schema):
    """A device that gets nothing, and why."""

    device: str
    reason: str


class WaveOut(Schema):
    """One step of a rollout."""

    number: int
    state: str
    started_at: datetime | None
    soaking_since: datetime | None
    finished_at: datetime | None
    verdict: dict[str, Any]


class DecisionOut(Schema):
    """One decision of a gate (no `by`) or a person."""

    verb: str
    sentence: str
    wave: int | None
    evidence: dict[str, Any]
    decided_at: datetime
    by: str | None

    @staticmethod
    def resolve_wave(decision: Decision) -> int | None:
        """Number of the wave it is about."""
        return decision.wave.number if decision.wave else None

    @staticmethod
    def resolve_by(decision: Decision) -> str | None:
        """Who decided; None for the gate."""
        return decision.decided_by.get_username() if decision.decided_by else None


class RolloutOut(Schema):
    """A rollout as the list shows it."""

    id: int
    model: Annotated[str, Field(alias="version.model.slug")]
    version: Annotated[int, Field(alias="version.number")]
    group: Annotated[str, Field(alias="group.slug")]
    app: str
    experiment: Annotated[
        int | None, Field(alias="experiment_id", description="The experiment that it is one half of.")
    ]
    side: str
    state: str
    reason: str
    strategy: dict[str, Any]
    start_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RolloutDetailOut(RolloutOut):
    """A rollout with its waves, decisions and counts."""

    waves: list[WaveOut]
    decisions: list[DecisionOut]
    left_out: Annotated[list[LeftOutOut], Field(alias="dropped")]
    held_back: list[str]
    waiting: str
    counts: dict[str, int]
    exposed: int
    verbs: list[str]

    @staticmethod
    def resolve_waves(rollout: Rollout) -> list[Wave]:
        """In order."""
        return list(rollout.waves.order_by("number"))

    @staticmethod
    def resolve_decisions(rollout: Rollout) -> list[Decision]:
        """Newest first."""
        return list(rollout.decisions.select_related("wave", "decided_by")[:200])

    @staticmethod
    def resolve_waiting(rollout: Rollout) -> str:
        """What pending devices wait for."""
        return offering.why_waiting(rollout, timezone.now())

    @staticmethod
    def resolve_counts(rollout: Rollout) -> dict[str, int]:
        """Installations by state."""
        installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL).order_by()
        return dict(installs.values_list("state").annotate(Count("pk")))

    @staticmethod
    def resolve_exposed(rollout: Rollout) -> int:
        """Devices that ran the version, if only on trial."""
        return services.exposed(rollout)

    @staticmethod
    def resolve_verbs(rollout: Rollout) -> list[str]:
        """Verbs that make sense now."""
        return services.possible_verbs(rollout)


class DeliveryOut(Schema):
    """One device's share."""

    id: UUID
    device: Annotated[str, Field(alias="device.name")]
    kind: str
    wave: int | None
    state: str
    reason: str
    artifact: Annotated[int | None, Field(alias="artifact_id")]
    previous: Annotated[int | None, Field(alias="previous_id")]
    attempt: int
    evidence: dict[str, Any]
    why: list[GateOut]
    hops: list[int]
    site: str
    zone: str
    consent: str
    not_before: datetime | None
    history: list[dict[str, Any]]
    offered_at: datetime | None
    changed_at: datetime | None
    finished_at: datetime | None

    @staticmethod
    def resolve_wave(delivery: Delivery) -> int | None:
        """Number of its wave."""
        return delivery.wave.number if delivery.wave else None


class ShadowOut(Schema):
    """A new version that ran beside the one in use, on the same inputs."""

    devices: int
    n: int
    errors: int
    compared: int
    agreed: int
    agreement: Annotated[
        float | None, Field(description="Share of inputs with one answer; null: no classes.")
    ]
    old_us: Annotated[int, Field(description="Mean latency of the version in use, in microseconds.")]
    new_us: int
    latency_change: float | None
    labelled: int
    correct: int
    old_correct: int
    accuracy_difference: Annotated[float | None, Field(description="New less old; null: no labels.")]
    sentence: str


class ConsentIn(Schema):
    """What the owner of a device said."""

    answer: Literal["now", "tonight", "no"]


def caller(request: HttpRequest) -> Any:
    """The user who was authenticated; `Any`, because Django types it as possibly anonymous."""
    return request.user


def named(payload: OrderIn) -> dict[str, Any]:
    """The rows and rules that an order names."""
    return {
        "version": services.version_of(payload.model, payload.version),
        "group": inventory.group_named(payload.group),
        "app": payload.app,
        "rules": payload.strategy,
    }


@router.get("/rollouts/strategy-schema", response=dict[str, Any])
def strategy_schema(request: HttpRequest) -> dict[str, Any]:
    """JSON schema of a strategy."""
    return strategy.schema()


@router.post("/rollouts", response={201: RolloutDetailOut})
def create(request: HttpRequest, payload: RolloutIn) -> tuple[int, Rollout]:
    """A draft; `start` starts it."""
    return 201, services.create(caller(request), **named(payload), start_at=payload.start_at, key=payload.key)


@router.get("/rollouts", response=list[RolloutOut])
@paginate
def list_rollouts(
    request: HttpRequest, model: str = "", group: str = "", state: str = ""
) -> QuerySet[Rollout]:
    """Rollouts, newest first."""
    found = Rollout.objects.select_related("version__model", "group")
    if model:
        found = found.filter(version__model__slug=model)
    if group:
        found = found.filter(group__slug=group)
    return found.filter(state=state) if state else found


@router.get("/rollouts/{rollout_id}", response=RolloutDetailOut)
def get(request: HttpRequest, rollout_id: int) -> Rollout:
    """One rollout."""
    return services.rollout_by_id(rollout_id)


@router.get("/rollouts/{rollout_id}/deliveries", response=list[DeliveryOut])
@paginate
def list_deliveries(request: HttpRequest, rollout_id: int, state: str = "") -> QuerySet[Delivery]:
    """Deliveries of a rollout, in the order of its plan."""
    found = services.rollout_by_id(rollout_id).deliveries.select_related("device", "wave")
    return found.filter(state=state) if state else found


@router.get("/rollouts/{rollout_id}/shadow", response=ShadowOut)
def shadow(request: HttpRequest, rollout_id: int) -> shadows.Comparison:
    """How a shadow rollout's version compares with what its devices use."""
    return shadows.compare(services.rollout_by_id(rollout_id))


@router.post("/rollouts/{rollout_id}/devices/{device}/consent", response=DeliveryOut)
def consent(request: HttpRequest, rollout_id: int, device: str, payload: ConsentIn) -> Delivery:
    """The answer of the owner of a device that asks: now, tonight (22:00 where the device is), or no."""
    rollout = services.rollout_by_id(rollout_id)
    return consents.answer(caller(request), rollout, device, payload.answer, timezone.now())
