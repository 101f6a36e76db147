"""Submitting and cancelling jobs over the API: everything that cannot work is refused before it starts."""

from typing import Any

import numpy as np
import pytest

from compression_jobs.models import Job
from fleet.accounts.roles import Role
from fleet.registry.models import CheckState
from tests.factories import FACTS, DatasetFactory, JobFactory, VersionFactory, api_client

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue")]


def body(**changes: Any) -> dict[str, Any]:
    """A job that can work, with changes; `goals_*` change the goals."""
    goals = {"targets": ["raspberry-pi-4"], "min_accuracy": 0.9}
    goals |= {
        name.removeprefix("goals_"): changes.pop(name) for name in list(changes) if name.startswith("goals_")
    }
    version = changes.pop("of", None) or VersionFactory()
    dataset = changes.pop("on", None) or DatasetFactory()
    return {
        "model": version.model.slug,
        "version": version.number,
        "dataset": dataset.pk,
        "goals": goals,
    } | changes


def submit(given: dict[str, Any], role: Role = Role.ENGINEER) -> Any:
    """POST /jobs."""
    return api_client(role).post("/api/v1/jobs", given, content_type="application/json")


def test_a_job_is_queued_and_can_be_followed(queue: list[Any]) -> None:
    answer = submit(
        body(goals_targets=["raspberry-pi-zero-2-w", "raspberry-pi-4"], seed=7, effort={"candidates": 9})
    )
    assert answer.status_code == 202, answer.content
    job = answer.json()
    assert job["effort"] == {"train_steps": 6000, "candidates": 9, "max_seconds": None}
    assert (job["state"], job["seed"]) == ("queued", 7)
    assert job["targets"] == ["raspberry-pi-4", "raspberry-pi-zero-2-w"]
    assert queue == [("compression_jobs.run", (job["id"],))]
    client = api_client(Role.VIEWER)
    assert client.get(f"/api/v1/jobs/{job['id']}").json() == job
    assert client.get("/api/v1/jobs?state=queued&target=raspberry-pi-4").json()["items"] == [job]
    assert client.get("/api/v1/jobs?state=failed").json()["items"] == []
    assert client.get(f"/api/v1/jobs/{job['id']}/candidates").json()["items"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"goals_targets": ["pdp-11"]}, "no such target"),
        ({"goals_targets": ["pdp-11"]}, "raspberry-pi-4"),
        ({"goals_targets": []}, "targets"),
        ({"goals_targets": ["raspberry-pi-4", "raspberry-pi-4"]}, "different targets"),
        ({"goals_min_accuracy": None}, "nothing says what must survive"),
        ({"goals_min_accuracy": 93}, "less than or equal to 1"),
        ({"goals_max_drop": -0.1}, "greater than or equal to 0"),
        ({"goals_objective": "beauty"}, "bytes"),
        ({"recipe": [{"name": "magic"}]}, "magic: no such pass"),
        ({"recipe": []}, "at least 1"),
        ({"seed": -1}, "seed"),
        ({"effort": {"train_steps": -1}}, "train_steps"),
        ({"effort": {"patience": 1}}, "patience"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    answer = submit(body(**changes))
    assert answer.status_code == 422, answer.content
    said = answer.json()
    assert words in said["detail"] + said["remedy"] + " ".join(said.get("problems", []))
    assert not Job.objects.exists()


def test_what_does_not_fit_together_is_refused_when_it_is_submitted() -> None:
    version = VersionFactory(facts=FACTS | {"inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 8]}]})
    answer = submit(body(of=version))
    assert answer.status_code == 422
    assert "a row of x has shape [4], the model's input x takes [8]" in answer.json()["detail"]
    dataset = DatasetFactory()
    dataset.facts["x"]["dtype"] = str(np.dtype("float64"))
    dataset.save()
    assert "x is float64" in submit(body(on=dataset)).json()["detail"]
    dataset = DatasetFactory()
    dataset.facts |= {"classes": 9}
    dataset.save()
    assert "has 9 classes" in submit(body(on=dataset)).json()["detail"]


def test_dimensions_that_the_dataset_settles_are_fine() -> None:
    version = VersionFactory(facts=FACTS | {"inputs": [{"name": "x", "dtype": "float32", "shape": [-1, -1]}]})
    assert submit(body(of=version)).status_code == 202


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"state": CheckState.CHECKING}, 409, "still being checked"),
        ({"state": CheckState.REFUSED, "reason": "it is a poem"}, 409, "was refused: it is a poem"),
        ({"facts": FACTS | {"quantised": True}}, 422, "quantised already"),
    ],
)
def test_a_version_that_is_not_ready_is_refused(changes: dict[str, Any], status: int, words: str) -> None:
    answer = submit(body(of=VersionFactory(**changes)))
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.content


def test_a_dataset_that_is_not_ready_is_refused() -> None:
    assert (
        "still being checked" in submit(body(on=DatasetFactory(state=CheckState.CHECKING))).json()["detail"]
    )


def test_the_same_job_again_says_which_one_is_at_it() -> None:
    given = body(recipe=[{"name": "canonicalise"}])
    first = submit(given).json()["id"]
    again = submit(given)
    assert (again.status_code, again.json()["error"]) == (409, "duplicate")
    assert f"job {first} is queued" in again.json()["detail"]
    assert submit(given | {"seed": 1}).status_code == 202
    Job.objects.filter(pk=first).update(state=Job.State.FAILED)
    assert submit(given).status_code == 202


def test_only_engineers_submit_and_cancel() -> None:
    job = JobFactory()
    for role in (Role.VIEWER, Role.OPERATOR):
        assert submit(body(), role).status_code == 403
        assert api_client(role).post(f"/api/v1/jobs/{job.pk}/cancel").status_code == 403


def test_a_waiting_job_is_cancelled_at_once_and_only_once() -> None:
    job, client = JobFactory(), api_client(Role.ENGINEER)
    answer = client.post(f"/api/v1/jobs/{job.pk}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    again = client.post(f"/api/v1/jobs/{job.pk}/cancel")
    assert (again.status_code, again.json()["detail"]) == (
        409,
        f"job {job.pk} is over already: it was cancelled",
    )


@pytest.mark.parametrize("path", ["/jobs/99", "/jobs/99/candidates"])
def test_a_job_that_is_not_there_is_said_so(path: str) -> None:
    assert api_client(Role.VIEWER).get(f"/api/v1{path}").status_code == 404


def test_the_schema_of_recipes_names_every_pass_with_its_options() -> None:
    schema = api_client(Role.VIEWER).get("/api/v1/recipes/schema").json()
    assert "properties" in schema["quantize"]["options"]


def test_a_student_of_ones_own_is_named_by_model_and_version(queue: list[Any]) -> None:
    student = VersionFactory()
    waiting = VersionFactory(state=CheckState.CHECKING)

    def recipe(name: str) -> list[dict[str, Any]]:
        return [{"name": "distill", "options": {"student": "given", "student_model": name}}]

    for name, status, words in (
        ("student", 422, "student names no version"),
        (f"{student.model.slug}/99", 404, "no version 99"),
        (f"{waiting.model.slug}/{waiting.number}", 409, "is not ready"),
    ):
        answer = submit(body(recipe=recipe(name)))
        assert (answer.status_code, words in answer.content.decode()) == (status, True), answer.content
    assert submit(body(recipe=recipe(f"{student.model.slug}/{student.number}"))).status_code == 202
