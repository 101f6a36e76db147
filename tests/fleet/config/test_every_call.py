"""Every call of the API, found in its own schema: closed to strangers, writes closed to viewers, no trace for nonsense."""

import re
import uuid
from itertools import product
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.config.api import api
from fleet.rollouts.models import Experiment, Rollout
from tests.factories import (
    ArtifactFactory,
    DeviceFactory,
    GroupFactory,
    JobFactory,
    ModelFactory,
    VersionFactory,
    api_client,
)

pytestmark = pytest.mark.django_db

Call = tuple[str, str, dict[str, Any]]
ROOT = "/api/v1"
# A device shows a token of its own; health tells nothing that must be hidden.
OPEN = {"/enrol", "/health", "/blobs/{sha256}"}
# What every user may do: manage tokens of their own, and look at what a rollout would do.
OWN = {"/tokens", "/tokens/{token_id}", "/rollouts/plan", "/rollouts/simulate", "/experiments/plan"}
ORDER = {"model": "m", "version": 1, "group": "g"}
BODIES: dict[str, Any] = {
    "/models/{slug}/versions/{number}/recall": {"reason": "tests"},
    "/models": {"slug": "new"},
    "/models/{slug}/aliases/{name}": {"version": 1},
    "/targets": {
        "slug": "new",
        "name": "New",
        "runtime": "onnxruntime",
        "clock_hz": 1,
        "flash_total_bytes": 1,
        "ram_total_bytes": 1,
    },
    "/artifacts/{artifact_id}/recall": {"reason": "it is wrong"},
    "/jobs": {
        "model": "m",
        "version": 1,
        "dataset": 1,
        "goals": {"targets": ["raspberry-pi-4"], "max_drop": 0.1},
    },
    "/devices/{name}": {"labels": {}},
    "/devices/{name}/commands": {"name": "hello"},
    "/groups": {"slug": "new"},
    "/groups/{slug}/devices": {"devices": []},
    "/enrolment-tokens": {"target": "raspberry-pi-4"},
    "/rollouts": ORDER,
    "/experiments": {"model": "m", "version_a": 1, "version_b": 2, "group": "g"},
    "/experiments/{experiment_id}/promote": {"side": "a"},
    "/hooks": {"kind": "webhook", "address": "https://example.org/"},
    "/rollouts/simulate": ORDER,
    "/rollouts/{rollout_id}/abort": {"mode": "keep"},
    "/rollouts/{rollout_id}/devices/{device}/consent": {"answer": "now"},
}
HUGE = "9" * 30
PLACES = (HUGE, "%00", "x" * 300)
NONSENSE = (HUGE, "-1", "%00", "2026-01-01")


def calls() -> list[Call]:
    """Method, path and description of every call."""
    paths = api.get_openapi_schema()["paths"].items()
    return [
        (method, path.removeprefix(ROOT), told) for path, methods in paths for method, told in methods.items()
    ]


def ask(client: Client, method: str, path: str, **values: str) -> Any:
    """The answer to a call with a body that fits its schema; `anything` stands for every other parameter."""
    address = ROOT + re.sub(r"\{(\w+)\}", lambda part: values.get(part[1], values["anything"]), path)
    if path.endswith("/versions") and method == "post":
        return client.post(address, {"files": SimpleUploadedFile("m.onnx", b"x")})
    if path == "/datasets" and method == "post":
        return client.post(address, {"file": SimpleUploadedFile("d.npz", b"x")})
    return getattr(client, method)(address, BODIES.get(path, {}), content_type="application/json")


def test_a_stranger_is_sent_away() -> None:
    let_in = [
        path
        for method, path, _ in calls()
        if path not in OPEN and ask(Client(), method, path, anything="1").status_code != 401
    ]
    assert let_in == []


def test_a_viewer_changes_nothing() -> None:
    artifact = ArtifactFactory(version=VersionFactory(model=ModelFactory(slug="m")))
    group = GroupFactory(slug="g")
    DeviceFactory(name="d", groups=[group])
    versions = {
        "version_a": artifact.version,
        "version_b": ArtifactFactory(version=VersionFactory(model=artifact.version.model)).version,
    }
    now = timezone.now()
    there = {
        "artifact_id": str(artifact.pk),
        "job_id": str(JobFactory().pk),
        "experiment_id": str(
            Experiment.objects.create(**versions, group=group, looked_at=now, created_at=now).pk
        ),
        "hook_id": str(uuid.uuid4()),
        "name": "d",
        "rollout_id": str(Rollout.objects.create(version=artifact.version, group=group).pk),
    }
    viewer = api_client(Role.VIEWER)
    for method, path, _ in calls():
        if method not in ("get", "head") and path not in OPEN | OWN:
            slug = "m" if "models" in path else "g"
            answer = ask(viewer, method, path, anything="1", slug=slug, **there)
            assert (path, answer.status_code) == (path, 403)
            assert "Ask an administrator for the role" in answer.json()["remedy"]


def test_nonsense_in_an_address_is_never_a_fault() -> None:
    admin = api_client(Role.ADMIN)
    for method, path, told in calls():
        if path == "/health":
            continue  # it answers 503, because nothing runs here
        faults = [value for value in PLACES if ask(admin, method, path, anything=value).status_code >= 500]
        assert (path, faults) == (path, [])
        questions = [part["name"] for part in told.get("parameters", []) if part["in"] == "query"]
        for question, value in product(questions, NONSENSE):
            asked = f"{path}?{question}={value}"
            assert (asked, ask(admin, method, asked, anything="1").status_code < 500) == (asked, True)


def test_every_call_is_described_in_a_sentence() -> None:
    assert [path for _, path, told in calls() if not told.get("description", "").endswith(".")] == []
