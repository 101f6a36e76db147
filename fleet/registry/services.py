"""Verbs of the registry: models, uploads, aliases and recalls."""

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from fleet import events
from fleet.errors import Conflict, Duplicate, NotFound, Refused
from fleet.registry import blobs, queueing
from fleet.registry.models import (
    Alias,
    AliasMove,
    Artifact,
    CheckState,
    Dataset,
    Model,
    ModelVersion,
    Upload,
    slug_validator,
)

MODEL_SUFFIXES = (".onnx", ".tflite")
CHECK_VERSION, CHECK_DATASET = "registry.check_version", "registry.check_dataset"
MAX_FILENAME_CHARS = 255


# --- models and their versions -------------------------------------------------------------------


def create_model(
    slug: str, name: str = "", *, description: str = "", task: str = "", user: Any = None
) -> Model:
    """A new model; its slug is its address for ever."""
    model = Model(
        slug=slug,
        name=name.strip() or slug,
        description=description,
        task=task or Model.Task.CLASSIFICATION,
        created_by=_who(user),
    )
    try:
        model.clean_fields()
    except ValidationError as error:
        raise invalid(f"model {slug!r}", error) from None
    try:
        with transaction.atomic():
            model.save(force_insert=True)
            events.publish("models", "overview")
    except IntegrityError:
        raise Duplicate(
            f"there is a model {slug} already", remedy=f"Upload a version of it, at /models/{slug}/versions."
        ) from None
    return model


def get_model(slug: str) -> Model:
    """The model of that slug."""
    model = Model.objects.filter(slug=slug).first()
    if model is None:
        raise NotFound(f"there is no model {slug!r}", remedy="GET /api/v1/models lists them.")
    return model


def get_version(slug: str, number: int) -> ModelVersion:
    """One version of a model."""
    version = ModelVersion.objects.select_related("model").filter(model__slug=slug, number=number).first()
    if version is None:
        raise NotFound(
            f"model {slug} has no version {number}", remedy=f"GET /api/v1/models/{slug}/versions lists them."
        )
    return version


def upload_version(
    model: Model, files: Sequence["UploadedFile[Any]"], *, notes: str = "", user: Any = None
) -> ModelVersion:
    """Store an upload of one model file, or an `.onnx` with its data file, and have it checked."""
    named = _model_first(files)
    kept = _store_all(named)
    digest = kept[0].sha256 if len(kept) == 1 else _joint_digest([blob.sha256 for blob in kept])
    with transaction.atomic():
        # Numbers are given one at a time: the model's row is the queue.
        Model.objects.select_for_update().get(pk=model.pk)
        _refuse_duplicate_version(model, digest)
        version = ModelVersion.objects.create(
            model=model,
            number=(model.versions.aggregate(last=Max("number"))["last"] or 0) + 1,
            format="tflite" if named[0][0].lower().endswith(".tflite") else "onnx",
            filename=named[0][0],
            upload_sha256=digest,
            bytes=sum(blob.bytes for blob in kept),
            notes=notes,
            created_by=_who(user),
        )
        for (filename, _), blob in zip(named, kept, strict=True):
            Upload.objects.create(version=version, filename=filename, sha256=blob.sha256, bytes=blob.bytes)
        queueing.send(CHECK_VERSION, version.pk)
        events.publish("models", f"model:{model.slug}", f"version:{version.pk}", "overview")
    return version


def _refuse_duplicate_version(model: Model, digest: str) -> None:
    twin = model.versions.filter(upload_sha256=digest).exclude(state=CheckState.REFUSED).first()
    if twin is not None:
        raise Duplicate(
            f"this file is {model.slug} version {twin.number} already (sha256 {digest[:12]}…)",
            remedy=f"Use version {twin.number}, or upload a file that differs.",
        )


def _model_first(files: Sequence["UploadedFile[Any]"]) -> list[tuple[str, "UploadedFile[Any]"]]:
    """Safe names and files, the model before its data; refuses every other combination."""
    named = [(safe_name(file.name), file) for file in files]
    models = [pair for pair in named if pair[0].lower().endswith(MODEL_SUFFIXES)]
    data = [pair for pair in named if pair not in models]
    if len(models) != 1 or len(data) > 1:
        got = ", ".join(name for name, _ in named) or "nothing"
        raise Refused(
            f"an upload is one .onnx or .tflite file, or an .onnx with its data file; this one is {got}",
            remedy="Export the model to ONNX, for example with torch.onnx.export(model, args, 'm.onnx').",
        )
    if data and models[0][0].lower().endswith(".tflite"):
        raise Refused(
            f"a .tflite has no second file such as {data[0][0]}", remedy="Upload the .tflite alone."
        )
    if data and data[0][0] == models[0][0]:
        raise Refused(f"both files are named {data[0][0]}", remedy="Upload the .onnx and its .onnx.data.")
    return models + data


def _store_all(named: Sequence[tuple[str, "UploadedFile[Any]"]]) -> list[blobs.Blob]:
    left, kept = int(settings.UPLOAD_MAX_BYTES), []
    for filename, file in named:
        blob = blobs.store(file, limit=left)
        if blob.bytes == 0:
            raise Refused(f"{filename} is empty", remedy="Export it again and upload the result.")
        left -= blob.bytes
        kept.append(blob)
    return kept


def _joint_digest(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def safe_name(name: str | None) -> str:
    """The last part of a sender's file name without control characters; only ever shown and compared."""
    last = PureWindowsPath(PurePosixPath(name or "").name).name
    printable = "".join(c for c in last if c.isprintable()).strip()
    if not printable.strip("."):
        raise Refused("a file came without a name", remedy="Name it, such as model.onnx.")
    return printable[-MAX_FILENAME_CHARS:]


# --- datasets ------------------------------------------------------------------------------------


def upload_dataset(file: "UploadedFile[Any]", name: str = "", *, user: Any = None) -> Dataset:
    """Store an `.npz` and have it checked."""
    filename = safe_name(file.name)
    if not filename.lower().endswith(".npz"):
        raise Refused(
            f"a dataset is an .npz file; this one is {filename}",
            remedy="Save it with numpy.savez('data.npz', x=x, y=y, split=split).",
        )
    [blob] = _store_all([(filename, file)])
    try:
        with transaction.atomic():
            dataset = Dataset.objects.create(
                name=(name.strip() or filename.removesuffix(".npz"))[:120],
                filename=filename,
                sha256=blob.sha256,
                bytes=blob.bytes,
                created_by=_who(user),
            )
            queueing.send(CHECK_DATASET, dataset.pk)
            events.publish("datasets", f"dataset:{dataset.pk}")
    except IntegrityError:
        twin = Dataset.objects.exclude(state=CheckState.REFUSED).get(sha256=blob.sha256)
        raise Duplicate(
            f"this file is dataset {twin.pk} ({twin.name}) already (sha256 {blob.sha256[:12]}…)",
            remedy=f"Use dataset {twin.pk}.",
        ) from None
    return dataset


def get_dataset(pk: int) -> Dataset:
    """The dataset of that id."""
    dataset = Dataset.objects.filter(pk=pk).first()
    if dataset is None:
        raise NotFound(f"there is no dataset {pk}", remedy="GET /api/v1/datasets lists them.")
    return dataset


# --- aliases -------------------------------------------------------------------------------------


def move_alias(
    model: Model, name: str, version: ModelVersion, *, user: Any = None, reason: str = ""
) -> Alias:
    """Let `name` point to `version` and keep the move; moving it to where it stands changes nothing."""
    _check_alias(model, name, version)
    with transaction.atomic():
        # Moves of one model happen one after the other, so that each one's `from` is the last one's `to`.
        Model.objects.select_for_update().get(pk=model.pk)
        alias = Alias.objects.select_related("version").filter(model=model, name=name).first()
        before = alias.version if alias else None
        if alias is None:
            alias = Alias.objects.create(model=model, name=name, version=version)
        elif before == version:
            return alias
        alias.version = version
        alias.save(update_fields=["version"])
        AliasMove.objects.create(
            model=model,
            name=name,
            from_version=before,
            to_version=version,
            reason=reason,
            moved_by=_who(user),
        )
        events.publish("models", f"model:{model.slug}", f"version:{version.pk}")
    return alias


def _check_alias(model: Model, name: str, version: ModelVersion) -> None:
    try:
        slug_validator(name)
    except ValidationError as error:
        raise invalid(f"alias {name!r}", error) from None
    if version.model_id != model.pk:
        raise Refused(f"{version} is not a version of {model.slug}", remedy="Name a version of this model.")
    if version.state != CheckState.READY:
        raise Conflict(
            f"{version} is {version.state}, and an alias names only what is ready",
            remedy="Wait for the check, or name another version.",
        )


# --- artifacts -----------------------------------------------------------------------------------


def get_artifact(pk: int) -> Artifact:
    """The artifact of that id."""
    found = Artifact.objects.select_related("version__model", "target", "dataset").filter(pk=pk).first()
    if found is None:
        raise NotFound(f"there is no artifact {pk}", remedy="GET /api/v1/artifacts lists them.")
    return found


def recall(artifact: Artifact, *, reason: str) -> Artifact:
    """Say that no rollout may take this artifact any more; devices that run it are rolled back by a rollout."""
    if not reason.strip():
        raise Refused("a recall needs a reason", remedy="Say what is wrong with the artifact.")
    with transaction.atomic():
        row = Artifact.objects.select_for_update().get(pk=artifact.pk)
        if row.recalled_at is not None:
            raise Conflict(f"artifact {artifact.pk} is recalled already: {row.recall_reason}")
        row.recalled_at, row.recall_reason = timezone.now(), reason.strip()
        row.save(update_fields=["recalled_at", "recall_reason"])
        events.publish("artifacts", f"version:{artifact.version_id}")
    return get_artifact(artifact.pk)


def recall_version(version: ModelVersion, *, reason: str, user: Any = None) -> bool:
    """Say that no device may run any artifact of a version any more; False when that was said before."""
    if not reason.strip():
        raise Refused("a recall needs a reason", remedy="Say what is wrong with the version.")
    said = {"recalled_at": timezone.now(), "recall_reason": reason.strip()}
    with transaction.atomic():
        fresh = ModelVersion.objects.filter(pk=version.pk, recalled_at=None)
        if not fresh.update(**said, recalled_by=_who(user)):
            return False
        Artifact.objects.filter(version=version, recalled_at=None).update(**said)
        events.publish("artifacts", "models", f"version:{version.pk}", "overview")
    return True


def invalid(what: str, error: ValidationError) -> Refused:
    """Django's field errors as one refusal of ours."""
    fields = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    problems = [f"{field}: {text}".removeprefix(": ") for field, texts in fields.items() for text in texts]
    return Refused(f"{what} is not valid: {'; '.join(problems)}", problems=problems)


def _who(user: Any) -> Any:
    return user if user is not None and user.is_authenticated else None
