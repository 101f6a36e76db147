"""Running jobs in real child processes: what is written on the way, at the end, and when it goes wrong."""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from compression_jobs import services
from compression_jobs.models import Candidate, Job
from compression_jobs.runner import run_job
from fleet.registry import blobs
from fleet.registry.models import Artifact
from tests.compression_jobs import pretend
from tests.factories import JobFactory, TargetFactory

pytestmark = pytest.mark.django_db


def ran(job: Job) -> Job:
    """The job after a worker was at it."""
    run_job(job.pk)
    job.refresh_from_db()
    return job


def two_targets() -> Job:
    """A job for two boards."""
    return JobFactory(targets=[TargetFactory(), TargetFactory(slug="raspberry-pi-zero-2-w")])


def test_a_job_ends_with_its_candidates_and_one_artifact_a_target(child: Any) -> None:
    child(pretend.find)
    job = ran(two_targets())
    assert (job.state, job.reason, job.lease_token) == (Job.State.SUCCEEDED, "", None)
    assert {slug: result["met"] for slug, result in job.results.items()} == {
        "raspberry-pi-4": True,
        "raspberry-pi-zero-2-w": True,
    }
    assert job.candidates.count() == 4
    assert set(job.candidates.filter(artifact=None).values_list("key", flat=True)) == {"float"}
    assert not any("/somewhere" in str(each.measurements) for each in Candidate.objects.all())
    for artifact in Artifact.objects.all():
        assert (artifact.job, artifact.accuracy_floor, artifact.dataset) == (str(job.pk), 0.91, job.dataset)
        assert all(blobs.exists(getattr(artifact, field)) for field in blobs.ARTIFACT_FIELDS)


def test_a_target_that_is_missed_is_explained_and_the_others_are_published(child: Any) -> None:
    child(pretend.miss)
    job = ran(two_targets())
    assert (job.state, job.reason) == (
        Job.State.SUCCEEDED,
        "raspberry-pi-4: flash binds; the nearest is int8",
    )
    assert [artifact.target.slug for artifact in Artifact.objects.all()] == ["raspberry-pi-zero-2-w"]
    job = ran(JobFactory())
    assert (job.state, job.results["raspberry-pi-4"]["binding"]) == (Job.State.FAILED, "flash")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (pretend.refuse, "Conv_12: groups = 3; use onnxruntime"),
        (pretend.crash, "crashed"),
    ],
)
def test_a_job_that_cannot_work_fails_with_the_reason(child: Any, function: Any, reason: str) -> None:
    child(function)
    job = ran(JobFactory())
    assert job.state == Job.State.FAILED
    assert reason in job.reason
    assert not Artifact.objects.exists()


def test_a_job_whose_data_was_lost_says_so(child: Any) -> None:
    child()
    job = JobFactory()
    blobs.default_storage.delete(blobs._name(job.dataset.sha256))
    assert "is not in storage" in ran(job).reason


def test_publishing_twice_gives_the_same_artifact(child: Any) -> None:
    child()
    job = JobFactory()
    ran(job)
    again = ran(JobFactory(version=job.version, dataset=job.dataset))
    assert again.state == Job.State.SUCCEEDED
    assert Artifact.objects.count() == 1
    assert Candidate.objects.filter(artifact=Artifact.objects.get()).count() == 2


def test_a_job_that_is_over_or_held_is_not_run_again(child: Any) -> None:
    child()
    job = ran(JobFactory())
    finished_at = job.finished_at
    assert ran(job).finished_at == finished_at
    assert ran(JobFactory(state=Job.State.CANCELLED)).attempt == 0


def in_thread(job: Job) -> threading.Thread:
    """A worker at the job, in a thread."""

    def work() -> None:
        try:
            run_job(job.pk)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def is_running(pid: int) -> bool:
    """Whether the process is alive; one that only waits to be buried is not."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


@pytest.mark.django_db(transaction=True)
def test_a_running_job_shows_its_progress_and_stops_when_it_is_cancelled(child: Any) -> None:
    child(pretend.wait)
    job = JobFactory()
    worker = in_thread(job)
    until(lambda: Job.objects.get(pk=job.pk).progress.get("step") == "measure")
    pid = int(Job.objects.get(pk=job.pk).progress["message"].split()[-1])
    services.cancel(job)
    worker.join(20)
    job.refresh_from_db()
    assert (job.state, job.reason) == (Job.State.CANCELLED, "cancelled while it was running")
    until(lambda: not is_running(pid))
    assert not list((Path(settings.VAR) / "jobs").glob(f"{job.pk}*"))
