"""Workers that are killed, paused or lost: the job goes on, and nothing is published twice."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from compression_jobs import outcome
from compression_jobs.models import Job
from compression_jobs.runner import run_job
from compression_jobs.sweeping import BUSY_RESEND, IDLE_RESEND, sweep
from fleet.registry import leases
from fleet.registry.models import Artifact
from tests.compression_jobs import pretend
from tests.compression_jobs.test_runner import in_thread, is_running, until
from tests.factories import JobFactory

pytestmark = [pytest.mark.django_db(transaction=True)]
LONG_AGO = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def go() -> Iterator[Path]:
    """The file that lets waiting children go on."""
    folder = Path(settings.VAR) / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder / "go"
    shutil.rmtree(folder)


def expire(job: Job) -> None:
    """As if the worker had been silent for long."""
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - LONG_AGO)


def at_work(job: Job) -> bool:
    """Whether the job's child said that it is at work."""
    return Job.objects.get(pk=job.pk).progress.get("step") == "measure"


def test_of_many_workers_one_gets_the_job() -> None:
    job = JobFactory()
    claimed = [leases.claim(Job.objects.filter(pk=job.pk), state=Job.State.RUNNING) for _ in range(5)]
    assert [lease is not None for lease in claimed] == [True, False, False, False, False]
    job.refresh_from_db()
    assert job.attempt == 1


def test_a_lease_is_renewed_while_the_worker_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    job = JobFactory()
    lease = leases.claim(Job.objects.filter(pk=job.pk))
    assert lease is not None
    expire(job)
    with leases.renewed(lease):
        until(lambda: (Job.objects.get(pk=job.pk).lease_until or timezone.now()) > timezone.now())
        assert not lease.lost
        Job.objects.filter(pk=job.pk).update(lease_token=None)
        until(lambda: lease.lost)


def test_a_killed_worker_s_job_is_taken_up_again_and_published_once(
    child: Any, queue: list[Any], go: Path
) -> None:
    job = JobFactory()
    code = (
        "import django; django.setup()\n"
        "from compression_jobs import runner\n"
        "from tests.compression_jobs import pretend\n"
        f"runner.compress = pretend.wait; runner.run_job({job.pk})"
    )
    database = f"sqlite:///{connection.settings_dict['NAME']}"
    environment = os.environ | {"DATABASE_URL": database, "DJANGO_SETTINGS_MODULE": "fleet.config.settings"}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        until(lambda: at_work(job), 60)
    finally:
        worker.kill()
        worker.wait()
    pid = int(Job.objects.get(pk=job.pk).progress["message"].split()[-1])
    until(lambda: not is_running(pid))
    assert sweep() == 0  # its lease still runs
    assert sweep(timezone.now() + leases.LEASE + timedelta(seconds=1)) == 1
    assert queue == [("compression_jobs.run", (job.pk,))]
    go.touch()
    child(pretend.wait)
    run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempt, Artifact.objects.count()) == (Job.State.SUCCEEDED, 2, 1)


def test_a_worker_that_wakes_up_too_late_writes_nothing(child: Any, queue: list[Any], go: Path) -> None:
    child(pretend.wait)
    job = JobFactory()
    paused = in_thread(job)
    until(lambda: at_work(job))
    expire(job)
    assert sweep() == 1
    other = leases.claim(Job.objects.filter(pk=job.pk), state=Job.State.RUNNING, progress={"step": "other"})
    assert other is not None
    go.touch()
    paused.join(30)
    job.refresh_from_db()
    assert (job.state, job.progress, job.lease_token) == (Job.State.RUNNING, {"step": "other"}, other.token)
    assert not Artifact.objects.exists()
    assert not job.candidates.exists()


def test_a_worker_that_finished_too_late_publishes_nothing(tmp_path: Path) -> None:
    job = JobFactory()
    rows = Job.objects.filter(pk=job.pk)
    late = leases.claim(rows, state=Job.State.RUNNING)
    results = pretend.find(
        {"targets": [{"slug": "raspberry-pi-4"}]}, tmp_path, tmp_path, tmp_path, tmp_path / "told"
    )
    expire(job)
    other = leases.claim(rows)
    assert late is not None
    assert other is not None
    assert not outcome.publish(job, late, results, tmp_path)
    assert late.lost
    assert rows.get().state == Job.State.RUNNING
    assert not Artifact.objects.exists()
    assert outcome.publish(job, other, results, tmp_path)
    assert Artifact.objects.count() == 1


def test_the_third_lost_worker_fails_the_job_with_the_reason(queue: list[Any]) -> None:
    job = JobFactory(progress={"step": "measure"})
    for attempt in (1, 2, 3):
        assert leases.claim(Job.objects.filter(pk=job.pk), state=Job.State.RUNNING)
        expire(job)
        assert sweep() == 1, attempt
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "lost 3 times, the last time at measure" in job.reason
    assert len(queue) == 2


def test_a_job_cancelled_while_its_worker_was_lost_ends_cancelled(queue: list[Any]) -> None:
    job = JobFactory()
    leases.claim(Job.objects.filter(pk=job.pk), state=Job.State.RUNNING, cancel_requested=True)
    expire(job)
    assert sweep() == 1
    job.refresh_from_db()
    assert (job.state, queue) == (Job.State.CANCELLED, [])


def test_a_queued_job_whose_message_was_lost_is_handed_over_again(queue: list[Any]) -> None:
    job, now = JobFactory(), timezone.now()
    assert sweep(now + IDLE_RESEND / 2) == 0
    assert sweep(now + IDLE_RESEND * 2) == 1
    assert sweep(now + IDLE_RESEND * 2) == 0
    busy = JobFactory(state=Job.State.RUNNING, lease_token="0" * 32, lease_until=now + timedelta(days=1))
    assert sweep(now + IDLE_RESEND * 9) == 0  # it waits behind another
    assert sweep(now + BUSY_RESEND * 2) == 1
    assert queue == [("compression_jobs.run", (job.pk,))] * 2
    assert busy.pk


def test_what_a_killed_worker_left_on_the_disk_goes_when_the_job_is_over(queue: list[Any], go: Path) -> None:
    over, running = JobFactory(state=Job.State.CANCELLED), JobFactory()
    for job in (over, running):
        (go.parent / str(job.pk) / "out").mkdir(parents=True)
    sweep()
    assert [path.name for path in go.parent.iterdir()] == [str(running.pk)]
