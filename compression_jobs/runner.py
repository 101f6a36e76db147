"""Runs one job under a lease: the pipeline in a child process, its progress and candidates written as they come."""

import json
import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from compression_jobs import outcome
from compression_jobs.child import compress
from compression_jobs.models import Job
from compression_jobs.named_models import named_models
from compression_jobs.pipeline.errors import Cancelled, PipelineError
from compression_jobs.pipeline.sandbox import Limits, run_limited
from compression_jobs.workspace import workspace
from fleet import events
from fleet.errors import FleetError
from fleet.registry import blobs, leases
from fleet.registry.leases import Lease
from fleet.registry.models import LatencyFactor
from fleet.registry.presets import pipeline_target

MEMORY_BYTES = 16 << 30
FINISHING_SECONDS = 30
ASK_SECONDS = 1.0

logger = logging.getLogger(__name__)


def run_job(pk: int) -> None:
    """Run the job if it waits and no living worker holds it; whoever loses the lease on the way writes nothing."""
    waiting = Job.objects.filter(pk=pk, state__in=Job.WAITING, attempt__lt=Job.MAX_ATTEMPTS)
    lease = leases.claim(waiting, state=Job.State.RUNNING)
    if lease is None:
        return
    Job.objects.filter(pk=pk, started_at=None).update(started_at=timezone.now())
    job = lease.held().select_related("version", "dataset").get()
    events.publish("jobs", f"job:{pk}", "overview")
    with leases.renewed(lease), workspace(pk, job.attempt) as folder:
        _run(job, lease, folder)


def _run(job: Job, lease: Lease, folder: Path) -> None:
    try:
        results = _in_child(job, lease, folder)
        outcome.publish(job, lease, results, folder / "out")
    except Cancelled:
        _end(job, lease, Job.State.CANCELLED, "cancelled while it was running")
    except PipelineError as error:
        _end(job, lease, Job.State.FAILED, str(error), error.problems)
    except SoftTimeLimitExceeded:
        _end(
            job, lease, Job.State.FAILED, f"it took more than JOB_MAX_SECONDS ({settings.JOB_MAX_SECONDS} s)"
        )
    except FleetError as error:
        _end(
            job,
            lease,
            Job.State.FAILED,
            f"{error.message}; {error.remedy}".removesuffix("; "),
            error.problems,
        )
    except DatabaseError:
        # Nothing can be written now; the lease runs out, and the sweep hands the job over again.
        raise
    except Exception as error:
        _end(
            job,
            lease,
            Job.State.FAILED,
            f"a mistake of the server ({type(error).__name__}); its log says more",
        )
        raise


def _end(job: Job, lease: Lease, state: Job.State, reason: str, problems: list[str] | None = None) -> None:
    with transaction.atomic():
        if lease.finish(state=state, reason=reason, problems=problems or [], finished_at=timezone.now()):
            events.publish("jobs", f"job:{job.pk}", "overview")
        else:
            logger.warning("job %s is somebody else's by now; nothing was written (%s)", job.pk, reason)


def _in_child(job: Job, lease: Lease, folder: Path) -> dict[str, Any]:
    told = folder / f"progress-{job.attempt}.jsonl"
    follow = Follower(job, lease, told)
    limits = Limits(seconds=max(30, settings.JOB_MAX_SECONDS - FINISHING_SECONDS), memory_bytes=MEMORY_BYTES)
    with ExitStack() as stack:
        model = stack.enter_context(blobs.path_for_child(job.version.sha256, suffix=f".{job.version.format}"))
        dataset = stack.enter_context(blobs.path_for_child(job.dataset.sha256, suffix=".npz"))
        others = {
            name: str(stack.enter_context(blobs.path_for_child(version.sha256, suffix=f".{version.format}")))
            for name, version in named_models(job.recipe).items()
        }
        found: dict[str, Any] = run_limited(
            compress,
            {**_plan(job), "others": others},
            model,
            dataset,
            folder / "out",
            told,
            limits=limits,
            cancelled=follow,
        )
    follow.write_new()
    return found


def _plan(job: Job) -> dict[str, Any]:
    rows = list(job.targets.order_by("slug"))
    factors = LatencyFactor.objects.filter(target__in=rows).values_list("target__slug", "factor")
    return {
        "targets": [pipeline_target(row).model_dump(mode="json") for row in rows],
        "goals": job.goals,
        "recipe": job.recipe,
        "effort": job.effort,
        "seed": job.seed,
        "factors": dict(factors),
    }


class Follower:
    """Reads what the child tells, writes it down, and answers whether the child has to stop."""

    def __init__(self, job: Job, lease: Lease, told: Path) -> None:
        self._job, self._lease, self._told = job, lease, told
        self._read = 0
        self._asked_at = float("-inf")
        self._cancelled = False

    def __call__(self) -> bool:
        """Whether to stop: the lease is lost, or somebody cancelled the job."""
        try:
            self.write_new()
            return self._lease.lost or self._is_cancelled()
        except DatabaseError as error:
            # A database that is away for a moment costs no work; the lease decides when it is too late.
            logger.warning("progress of job %s waits: %s", self._job.pk, error)
            return self._lease.lost

    def write_new(self) -> None:
        """Write down what was told since the last call: every candidate, and the last step."""
        lines, end = self._new_lines()
        if not lines:
            return
        steps = [json.loads(line) for line in lines]
        candidates = [step["candidate"] for step in steps if step.get("candidate")]
        last = {name: steps[-1].get(name) for name in ("step", "done", "total", "message", "target")}
        with transaction.atomic():
            if self._lease.write(progress=last):
                outcome.keep_candidates(self._job, candidates)
                events.publish(f"job:{self._job.pk}")
        self._read = end

    def _new_lines(self) -> tuple[list[bytes], int]:
        if not self._told.exists():
            return [], 0
        with self._told.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        return whole.splitlines(), self._read + len(whole)

    def _is_cancelled(self) -> bool:
        if not self._cancelled and time.monotonic() - self._asked_at > ASK_SECONDS:
            self._asked_at = time.monotonic()
            self._cancelled = Job.objects.filter(pk=self._job.pk, cancel_requested=True).exists()
        return self._cancelled
