"""Looks at uploads in limited child processes; what is refused keeps the reason and loses its bytes."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from compression_jobs.pipeline.errors import Cancelled, PipelineError
from compression_jobs.pipeline.sandbox import Limits, run_limited
from fleet import events
from fleet.registry import blobs, leases, queueing
from fleet.registry.leases import Lease
from fleet.registry.models import CheckState, Dataset, ModelVersion, Upload
from fleet.registry.services import CHECK_DATASET, CHECK_VERSION

MAX_ATTEMPTS = 3
# An upload that was queued a moment ago is not lost yet.
LOST_AFTER = timedelta(seconds=30)
LIMITS = Limits(seconds=240)


def check_version(pk: int) -> None:
    """Inline and describe an uploaded model: ready with its facts, or refused with the reasons."""
    _check(ModelVersion.objects.filter(pk=pk), _examine_version)


def check_dataset(pk: int) -> None:
    """Describe an uploaded dataset: ready with its facts, or refused with the reasons."""
    _check(Dataset.objects.filter(pk=pk), _examine_dataset)


def requeue_lost(now: Any = None) -> int:
    """Hand over again the checks whose worker or queue was lost; returns how many."""
    now, found = now or timezone.now(), 0
    lost = leases.free(now)
    for rows, task in ((ModelVersion.objects, CHECK_VERSION), (Dataset.objects, CHECK_DATASET)):
        waiting = rows.filter(lost, state=CheckState.CHECKING, created_at__lt=now - LOST_AFTER)
        for pk in waiting.values_list("pk", flat=True)[:100]:
            queueing.send_now(task, pk)
            found += 1
    return found


def _check(rows: QuerySet[Any], examine: Callable[[Any, Lease], dict[str, Any]]) -> None:
    lease = leases.claim(rows.filter(state=CheckState.CHECKING))
    if lease is None:
        return
    row = lease.held().get()
    with leases.renewed(lease):
        try:
            _refuse_fourth_attempt(row)
            changes = {"state": CheckState.READY, **examine(row, lease)}
        except Cancelled:
            return
        except PipelineError as error:
            changes = {"state": CheckState.REFUSED, "reason": str(error), "problems": error.problems}
    _conclude(row, lease, changes)


def _refuse_fourth_attempt(row: Any) -> None:
    if row.attempt > MAX_ATTEMPTS:
        raise PipelineError(
            f"checking {row.filename} was interrupted {MAX_ATTEMPTS} times",
            remedy="the server's log says why; a smaller file may pass",
        )


def _conclude(row: Any, lease: Lease, changes: dict[str, Any]) -> None:
    uploads = Upload.objects.filter(version=row) if isinstance(row, ModelVersion) else Upload.objects.none()
    digests = [row.sha256, *uploads.values_list("sha256", flat=True)]
    with transaction.atomic():
        if not lease.finish(checked_at=timezone.now(), **changes):
            return
        uploads.delete()
        events.publish(*_names(row))
    # Only what was stored before this upload: whoever sends the same bytes right now keeps them.
    blobs.delete_unreferenced(stored_before=row.created_at, among=filter(None, digests))


def _names(row: Any) -> list[str]:
    if isinstance(row, Dataset):
        return ["datasets", f"dataset:{row.pk}"]
    return ["models", f"model:{row.model.slug}", f"version:{row.pk}", "overview"]


def _examine_version(version: ModelVersion, lease: Lease) -> dict[str, Any]:
    # Imported here, because it loads onnx, which only workers do.
    from compression_jobs.pipeline.graph.facts import describe_model

    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        uploads = list(version.uploads.order_by("pk"))
        paths = {each.filename: stack.enter_context(_local(each)) for each in uploads}
        model = paths.pop(version.filename)
        if paths:
            model = _inlined(model, paths, Path(folder) / "model.onnx", lease)
        facts = run_limited(describe_model, model, limits=LIMITS, cancelled=lambda: lease.lost)
        with model.open("rb") as file:
            blob = blobs.store(file)
    return {
        "sha256": blob.sha256,
        "bytes": blob.bytes,
        "format": facts["format"],
        "facts": facts,
        "signature": {"inputs": facts["inputs"], "outputs": facts["outputs"], "task": version.model.task},
    }


def _local(upload: Upload) -> Any:
    return blobs.path_for_child(upload.sha256, suffix=Path(upload.filename).suffix.lower())


def _inlined(model: Path, data: dict[str, Path], out: Path, lease: Lease) -> Path:
    from compression_jobs.pipeline.graph.ingest import inline_external

    run_limited(inline_external, model, data, out, limits=LIMITS, cancelled=lambda: lease.lost)
    return out


def _examine_dataset(dataset: Dataset, lease: Lease) -> dict[str, Any]:
    from compression_jobs.pipeline.dataset import describe_dataset

    with blobs.path_for_child(dataset.sha256, suffix=".npz") as path:
        facts = run_limited(describe_dataset, path, limits=LIMITS, cancelled=lambda: lease.lost)
    return {"facts": facts}
