"""Takes up jobs whose worker or whose message was lost; runs every five seconds."""

import shutil
from contextlib import suppress
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from compression_jobs.models import Job
from compression_jobs.services import RUN
from compression_jobs.workspace import workspaces
from fleet import events
from fleet.registry import leases, queueing

# A queued job is handed over again when no worker is busy with another, or in any case after a while.
IDLE_RESEND, BUSY_RESEND = timedelta(seconds=20), timedelta(minutes=10)


def sweep(now: datetime | None = None) -> int:
    """Queue, fail or cancel jobs that lost their worker, and queue jobs that lost their message; returns how many."""
    now = now or timezone.now()
    lost = Job.objects.filter(leases.free(now), state=Job.State.RUNNING)
    found = sum(_take_up(job, now) for job in lost)
    found += _resend(now)
    _clean_up()
    return found


def _take_up(job: Job, now: datetime) -> bool:
    # The token that was seen is part of the condition: a job that was taken in the meantime stays as it is.
    rows = Job.objects.filter(
        leases.free(now), pk=job.pk, state=Job.State.RUNNING, lease_token=job.lease_token
    )
    dropped = {"lease_token": None, "lease_until": None}
    if job.cancel_requested:
        changed = rows.update(state=Job.State.CANCELLED, reason="cancelled", finished_at=now, **dropped)
    elif job.attempt >= Job.MAX_ATTEMPTS:
        changed = rows.update(state=Job.State.FAILED, reason=_reason(job), finished_at=now, **dropped)
    else:
        changed = rows.update(state=Job.State.QUEUED, queued_at=now, **dropped)
        if changed:
            queueing.send(RUN, job.pk)
    if changed:
        events.publish("jobs", f"job:{job.pk}", "overview")
    return bool(changed)


def _reason(job: Job) -> str:
    step = job.progress.get("step") or "the start"
    return (
        f"its worker was lost {job.attempt} times, the last time at {step}; "
        "most likely the machine runs out of memory: try a smaller model or fewer rows"
    )


def _resend(now: datetime) -> int:
    busy = Job.objects.filter(~leases.free(now), state=Job.State.RUNNING).exists()
    stale = Q(queued_at__lt=now - (BUSY_RESEND if busy else IDLE_RESEND))
    found = 0
    for pk in Job.objects.filter(stale, state=Job.State.QUEUED).values_list("pk", flat=True)[:100]:
        if Job.objects.filter(stale, pk=pk, state=Job.State.QUEUED).update(queued_at=now):
            queueing.send(RUN, pk)
            found += 1
    return found


def _clean_up() -> None:
    """Remove what workers that were killed left on this machine of jobs that are over."""
    left = workspaces()
    over = (
        set(Job.objects.filter(pk__in=left, state__in=Job.ENDS).values_list("pk", flat=True))
        if left
        else set()
    )
    for pk in over:
        for folder in left[pk]:
            with suppress(OSError):
                shutil.rmtree(folder)
