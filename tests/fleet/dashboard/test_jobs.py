"""The job pages: submit, refuse, watch, cancel, export."""

import pytest

from compression_jobs.models import Candidate, Job
from fleet.accounts.roles import Role
from fleet.registry.models import Target
from tests.factories import DatasetFactory, JobFactory, TargetFactory, VersionFactory
from tests.fleet.dashboard.conftest import Login


def fields(**changes: object) -> dict[str, object]:
    """A form that is accepted."""
    made = {"version": VersionFactory().pk, "dataset": DatasetFactory().pk, "targets": [TargetFactory().slug]}
    return {**made, "min_accuracy": "0.9", "max_drop": "", "objective": "bytes", "seed": "0", **changes}


def candidate(job: Job, target: Target, key: str, size: int, **fields: object) -> Candidate:
    """A measured candidate."""
    accuracy = {"value": 0.95, "low": 0.91, "high": 0.97, "n": 200}
    values: dict[str, object] = {"fits": True, "measurements": {"accuracy": accuracy}, **fields}
    return Candidate.objects.create(
        job=job, target=target, key=key, sha256=key * 64, format="onnx", bytes=size, **values
    )  # type: ignore[misc]


def test_a_job_is_submitted_and_the_same_one_again_is_refused(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.registry.queueing.send", lambda *_, **__: None)
    client, form = login(Role.ENGINEER), fields()
    sent = client.post("/jobs/new/", form)
    job = Job.objects.get()
    assert sent.headers["Location"] == f"/jobs/{job.pk}/"
    assert job.goals == {"min_accuracy": 0.9, "max_drop": None, "objective": "bytes"}
    again = client.post("/jobs/new/", form)
    assert again.status_code == 409
    assert f"Follow job {job.pk}" in again.content.decode()


def test_a_goal_or_target_that_cannot_work_is_refused_in_words(login: Login) -> None:
    client = login(Role.ENGINEER)
    nothing = client.post("/jobs/new/", fields(min_accuracy=""))
    assert "Say what must survive" in nothing.content.decode()
    export_only = client.post("/jobs/new/", fields(targets=[TargetFactory(slug="stm32f746").slug]))
    assert export_only.status_code == 422
    assert "raspberry-pi-4" in export_only.content.decode()  # names those that can
    assert not Job.objects.exists()


def test_the_page_shows_progress_sentences_candidates_and_their_csv(login: Login) -> None:
    job = JobFactory(
        state=Job.State.RUNNING,
        progress={"step": "measure", "done": 2, "total": 8, "message": "int8", "target": "raspberry-pi-4"},
        results={"raspberry-pi-4": {"met": True, "shown": False, "sentence": "met with 86 KiB"}},
    )
    candidate(job, job.targets.get(), "a", 90_000, rejected="less accurate")
    client = login()
    page = client.get(f"/jobs/{job.pk}/").content.decode()
    for text in (
        "Measure for raspberry-pi-4: 2 of 8",
        "Met with 86 KiB.",
        "Less accurate.",
        "1 candidate measured.",
        'id="pareto-option"',
    ):
        assert text in page
    csv = client.get(f"/jobs/{job.pk}/?csv=pareto").content.decode().splitlines()
    assert csv[0].startswith("candidate,recipe,bytes,accuracy")
    assert csv[1].startswith("a,as uploaded,90000,0.95,0.91,0.97,200")


def test_cancelling_asks_first_and_then_stops_the_job(login: Login) -> None:
    job = JobFactory()
    client = login(Role.ENGINEER)
    assert "Cancel this job?" in client.get(f"/jobs/{job.pk}/").content.decode()
    assert "Cancel this job?" not in login().get(f"/jobs/{job.pk}/").content.decode()
    client.post(f"/jobs/{job.pk}/cancel/")
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert "is over already" in client.post(f"/jobs/{job.pk}/cancel/", follow=True).content.decode()
