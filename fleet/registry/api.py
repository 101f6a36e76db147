"""REST endpoints of the registry: models, versions, aliases, datasets, targets, artifacts, blobs."""

from typing import Annotated

from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest, HttpResponseBase
from ninja import File, Form, Query, Router, UploadedFile
from ninja.pagination import paginate

from fleet.accounts.roles import Role, require
from fleet.errors import NotFound
from fleet.registry import downloads, schemas, services
from fleet.registry.models import Alias, AliasMove, Artifact, CheckState, Dataset, Model, ModelVersion, Target
from fleet.registry.presets import create_target

router = Router(tags=["registry"])


# --- models --------------------------------------------------------------------------------------


def _models() -> QuerySet[Model]:
    counted = Model.objects.annotate(version_count=Count("versions"), latest_version=Max("versions__number"))
    return counted.prefetch_related("aliases__version")


@router.post("/models", response={201: schemas.ModelOut})
def create_model(request: HttpRequest, payload: schemas.ModelIn) -> tuple[int, Model]:
    """Make a model."""
    require(request.user, Role.ENGINEER)
    model = services.create_model(**payload.model_dump(), user=request.user)
    return 201, _models().get(pk=model.pk)


@router.get("/models", response=list[schemas.ModelOut])
@paginate
def list_models(request: HttpRequest, task: Model.Task | None = None) -> QuerySet[Model]:
    """All models."""
    return _models().filter(task=task) if task else _models()


@router.get("/models/{slug}", response=schemas.ModelOut)
def read_model(request: HttpRequest, slug: str) -> Model:
    """One model."""
    return _models().get(pk=services.get_model(slug).pk)


# --- versions ------------------------------------------------------------------------------------


@router.post("/models/{slug}/versions", response={202: schemas.VersionOut})
def upload_version(
    request: HttpRequest,
    slug: str,
    files: Annotated[list[UploadedFile], File(description="`m.onnx`, with its `m.onnx.data` if it has one.")],
    notes: Annotated[str, Form(max_length=10_000)] = "",
) -> tuple[int, ModelVersion]:
    """Upload a version; the answer comes before the check, so look again until `state` is ready or refused."""
    require(request.user, Role.ENGINEER)
    model = services.get_model(slug)
    return 202, services.upload_version(model, files, notes=notes, user=request.user)


@router.get("/models/{slug}/versions", response=list[schemas.VersionOut])
@paginate
def list_versions(request: HttpRequest, slug: str, state: CheckState | None = None) -> QuerySet[ModelVersion]:
    """The versions of a model, newest first."""
    found = services.get_model(slug).versions.select_related("model").order_by("-number")
    return found.filter(state=state) if state else found


@router.get("/models/{slug}/versions/{number}", response=schemas.VersionOut)
def read_version(request: HttpRequest, slug: str, number: int) -> ModelVersion:
    """One version."""
    return services.get_version(slug, number)


@router.get("/models/{slug}/versions/{number}/download", response={200: bytes})
def download_version(request: HttpRequest, slug: str, number: int) -> HttpResponseBase:
    """The model file, self-contained."""
    version = services.get_version(slug, number)
    if version.state != CheckState.READY:
        raise NotFound(f"{version} is {version.state}, so there is no file to download")
    return downloads.respond(request, version.sha256, version.download_name)


# --- aliases -------------------------------------------------------------------------------------


@router.put("/models/{slug}/aliases/{name}", response=schemas.AliasOut)
def move_alias(request: HttpRequest, slug: str, name: str, payload: schemas.AliasIn) -> Alias:
    """Let an alias point to a version; the move is kept."""
    require(request.user, Role.ENGINEER)
    version = services.get_version(slug, payload.version)
    return services.move_alias(version.model, name, version, user=request.user, reason=payload.reason)


@router.get("/models/{slug}/aliases/{name}", response=schemas.AliasOut)
def read_alias(request: HttpRequest, slug: str, name: str) -> Alias:
    """Where an alias points to."""
    found = services.get_model(slug).aliases.select_related("version").filter(name=name).first()
    if found is None:
        raise NotFound(f"model {slug} has no alias {name!r}")
    return found


@router.get("/models/{slug}/aliases/{name}/history", response=list[schemas.AliasMoveOut])
@paginate
def alias_history(request: HttpRequest, slug: str, name: str) -> QuerySet[AliasMove]:
    """Every move of an alias, newest first: who, when, from, to."""
    moves = services.get_model(slug).alias_moves.filter(name=name)
    return moves.select_related("from_version", "to_version", "moved_by")


# --- datasets ------------------------------------------------------------------------------------


@router.post("/datasets", response={202: schemas.DatasetOut})
def upload_dataset(
    request: HttpRequest,
    file: Annotated[UploadedFile, File(description="An `.npz` with x, y and, when given, split.")],
    name: Annotated[str, Form(max_length=120)] = "",
) -> tuple[int, Dataset]:
    """Upload a dataset; the answer comes before the check."""
    require(request.user, Role.ENGINEER)
    return 202, services.upload_dataset(file, name, user=request.user)


@router.get("/datasets", response=list[schemas.DatasetOut])
@paginate
def list_datasets(request: HttpRequest, state: CheckState | None = None) -> QuerySet[Dataset]:
    """All datasets, newest first."""
    return Dataset.objects.filter(state=state) if state else Dataset.objects.all()


@router.get("/datasets/{dataset_id}", response=schemas.DatasetOut)
def read_dataset(request: HttpRequest, dataset_id: int) -> Dataset:
    """One dataset."""
    return services.get_dataset(dataset_id)


# --- targets -------------------------------------------------------------------------------------


@router.get("/targets", response=list[schemas.TargetOut])
@paginate
def list_targets(request: HttpRequest, runtime: Target.Runtime | None = None) -> QuerySet[Target]:
    """All hardware classes."""
    return Target.objects.filter(runtime=runtime) if runtime else Target.objects.all()


@router.post("/targets", response={201: schemas.TargetOut})
def make_target(request: HttpRequest, payload: schemas.TargetIn) -> tuple[int, Target]:
    """Describe a hardware class of your own."""
    require(request.user, Role.ENGINEER)
    return 201, create_target(**payload.model_dump())


@router.get("/targets/{slug}", response=schemas.TargetOut)
def read_target(request: HttpRequest, slug: str) -> Target:
    """One hardware class."""
    found = Target.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound(f"there is no target {slug!r}", remedy="GET /api/v1/targets lists them.")
    return found


# --- artifacts and blobs -------------------------------------------------------------------------


@router.get("/artifacts", response=list[schemas.ArtifactOut])
@paginate
def list_artifacts(
    request: HttpRequest, filters: Annotated[schemas.ArtifactFilter, Query()]
) -> QuerySet[Artifact]:
    """Published artifacts, newest first."""
    return filters.filter(Artifact.objects.select_related("version__model", "target"))


@router.get("/artifacts/{artifact_id}", response=schemas.ArtifactOut)
def read_artifact(request: HttpRequest, artifact_id: int) -> Artifact:
    """One artifact."""
    return services.get_artifact(artifact_id)


@router.get("/artifacts/{artifact_id}/download", response={200: bytes})
def download_artifact(request: HttpRequest, artifact_id: int) -> HttpResponseBase:
    """The artifact's file."""
    found = services.get_artifact(artifact_id)
    return downloads.respond(request, found.sha256, found.download_name)


@router.post("/artifacts/{artifact_id}/recall", response=schemas.ArtifactOut)
def recall_artifact(request: HttpRequest, artifact_id: int, payload: schemas.RecallIn) -> Artifact:
    """Say that no rollout may take this artifact any more."""
    require(request.user, Role.ENGINEER)
    return services.recall(services.get_artifact(artifact_id), reason=payload.reason)


@router.api_operation(["GET", "HEAD"], "/blobs/{sha256}", auth=None, response={200: bytes, 206: bytes})
def read_blob(request: HttpRequest, sha256: str, token: str = "") -> HttpResponseBase:
    """A blob, or a range of it, for a device whose manifest named this address."""
    downloads.device_of(token, sha256)
    return downloads.respond(request, sha256)
