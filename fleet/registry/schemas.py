"""What the registry's API takes and gives."""

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, FilterSchema, Schema

from compression_jobs.pipeline.targets import Reserve, RuntimeName, Slug
from fleet.registry.models import CheckState, Model

Name = Annotated[str, Field(max_length=120)]


class ModelIn(Schema):
    """A new model."""

    slug: Slug
    name: Name = ""
    description: Annotated[str, Field(max_length=10_000)] = ""
    task: Model.Task = Model.Task.CLASSIFICATION


class AliasOut(Schema):
    """A name and the number of the version it points to."""

    name: str
    version: Annotated[int, Field(alias="version.number")]


class ModelOut(Schema):
    """A model."""

    slug: str
    name: str
    description: str
    task: str
    created_at: datetime
    versions: Annotated[int, Field(alias="version_count", description="How many there are.")]
    latest_version: int | None
    aliases: list[AliasOut]

    @staticmethod
    def resolve_aliases(model: Model) -> list[Any]:
        """By name."""
        return list(model.aliases.all())


class VersionOut(Schema):
    """A version: its state, why it was refused, and its facts."""

    id: int
    model: Annotated[str, Field(alias="model.slug")]
    version: Annotated[int, Field(alias="number")]
    state: CheckState
    reason: str
    problems: list[str]
    format: str
    filename: str
    sha256: str
    bytes: int
    facts: dict[str, Any]
    signature: dict[str, Any]
    notes: str
    created_at: datetime
    checked_at: datetime | None


class AliasIn(Schema):
    """Where an alias shall point to, and why."""

    version: Annotated[int, Field(ge=1)]
    reason: Annotated[str, Field(max_length=2000)] = ""


class AliasMoveOut(Schema):
    """One move of an alias."""

    name: str
    from_version: int | None
    to_version: int | None
    reason: str
    moved_at: datetime
    moved_by: str | None

    @staticmethod
    def resolve_from_version(move: Any) -> int | None:
        """The number of the version before."""
        return move.from_version.number if move.from_version else None

    @staticmethod
    def resolve_to_version(move: Any) -> int | None:
        """The number of the version after."""
        return move.to_version.number if move.to_version else None

    @staticmethod
    def resolve_moved_by(move: Any) -> str | None:
        """Who moved it."""
        return move.moved_by.get_username() if move.moved_by else None


class DatasetOut(Schema):
    """A dataset: its state, why it was refused, and its facts."""

    id: int
    name: str
    state: CheckState
    reason: str
    problems: list[str]
    filename: str
    sha256: str
    bytes: int
    facts: dict[str, Any]
    created_at: datetime
    checked_at: datetime | None


class TargetIn(Schema):
    """A hardware class of your own: totals from the data sheet, and what is taken before a model may have any."""

    slug: Slug
    name: Name
    runtime: RuntimeName
    chip: Name = ""
    clock_hz: Annotated[int, Field(gt=0)]
    flash_total_bytes: Annotated[int, Field(gt=0)]
    ram_total_bytes: Annotated[int, Field(gt=0)]
    subtraction: Annotated[list[Reserve], Field(max_length=50)] = []
    source: Annotated[str, Field(max_length=300)] = ""
    latency_us: Annotated[int, Field(gt=0)] | None = None


class TargetOut(Schema):
    """A hardware class and what it leaves free for one artifact."""

    slug: str
    name: str
    runtime: str
    chip: str
    clock_hz: int | None
    flash_total_bytes: int
    ram_total_bytes: int
    flash_bytes: int
    ram_bytes: int
    subtraction: list[dict[str, Any]]
    source: str
    latency_us: int | None
    chunk_bytes: int
    export_only: bool
    is_preset: bool


class ArtifactFilter(FilterSchema):
    """Which artifacts."""

    model: Annotated[str | None, Field(q="version__model__slug")] = None
    version: Annotated[int | None, Field(q="version__number")] = None
    target: Annotated[str | None, Field(q="target__slug")] = None
    job: str | None = None


class ArtifactOut(Schema):
    """A published candidate."""

    id: int
    model: Annotated[str, Field(alias="version.model.slug")]
    version: Annotated[int, Field(alias="version.number")]
    target: Annotated[str, Field(alias="target.slug")]
    sha256: str
    bytes: int
    format: str
    transport_coding: str
    transport_bytes: int
    signature: dict[str, Any]
    measurements: dict[str, Any]
    lineage: dict[str, Any]
    accuracy_floor: float | None
    dataset: Annotated[int | None, Field(alias="dataset_id")]
    job: str
    created_at: datetime
    recalled_at: datetime | None
    recall_reason: str


class RecallIn(Schema):
    """Why an artifact is recalled."""

    reason: Annotated[str, Field(min_length=1, max_length=2000)]
