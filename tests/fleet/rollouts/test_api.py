"""Rollouts over REST: dry run, create, steer, watch."""

from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.accounts.roles import Role
from fleet.registry.models import Artifact
from fleet.rollouts import engine
from tests.factories import ArtifactFactory, GroupFactory, api_client
from tests.fleet.devices_by_hand import hand_device

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_from_dry_run_to_abort() -> None:
    """The plan that is shown is the plan that runs."""
    group = GroupFactory(slug="lab")
    artifact: Artifact = ArtifactFactory()
    for n in range(3):
        hand_device(f"pi-{n}", NOW, groups=[group])
    client = api_client(Role.OPERATOR)

    def post(path: str, body: Any = None) -> Any:
        return client.post(f"/api/v1/rollouts{path}", body or {}, content_type="application/json")

    order = {"model": artifact.version.model.slug, "version": 1, "group": "lab", "strategy": {"waves": [1]}}
    plan = post("/plan", order).json()
    assert [len(wave) for wave in plan["waves"]] == [1, 2]
    assert "cannot show" in plan["evidence"]
    waits = {**order, "strategy": {"waves": [1], "approve_waves": True}, "answer_hours": 10, "flaky": 0.1}
    played = post("/simulate", {**waits, "season": {"latency": 0.1}, "confidence": 0.2}).json()
    assert played["hours"]["q50"] > 1
    assert "10.0% of tries fail for a reason that passes; there are 1 in all." in played["assumed"]
    assert post("/simulate", {**order, "season": {"mood": 0.1}}).status_code == 422
    made = post("", order)
    assert made.status_code == 201, made.content
    rollout = made.json()
    assert (rollout["state"], rollout["verbs"]) == ("draft", ["start", "schedule", "abort"])
    assert post(f"/{rollout['id']}/start").json()["state"] == "scheduled"
    engine.tick(NOW)
    shown = client.get(f"/api/v1/rollouts/{rollout['id']}").json()
    assert (shown["state"], shown["counts"]) == ("running", {"offered": 1, "pending": 2})
    deliveries = client.get(f"/api/v1/rollouts/{rollout['id']}/deliveries?state=offered").json()["items"]
    assert [d["device"] for d in deliveries] == [share["device"] for share in plan["waves"][0]]
    assert post(f"/{rollout['id']}/abort", {"mode": "keep"}).json()["state"] == "aborted"
    assert post(f"/{rollout['id']}/resume").status_code == 409
    assert client.get("/api/v1/rollouts?state=aborted").json()["count"] == 1
    assert "waves" in client.get("/api/v1/rollouts/strategy-schema").json()["properties"]


def test_viewers_watch_and_unknown_things_are_named() -> None:
    """403 and 404 with sentences."""
    group, artifact = GroupFactory(slug="lab"), ArtifactFactory()
    hand_device("pi-0", NOW, groups=[group])
    order = {"model": artifact.version.model.slug, "version": 1, "group": "lab"}
    viewer = api_client(Role.VIEWER)
    assert viewer.post("/api/v1/rollouts/plan", order, content_type="application/json").status_code == 200
    assert viewer.post("/api/v1/rollouts", order, content_type="application/json").status_code == 403
    lost = viewer.post("/api/v1/rollouts/plan", {**order, "version": 9}, content_type="application/json")
    assert (lost.status_code, lost.json()["error"]) == (404, "not_found")
    assert viewer.get("/api/v1/rollouts/999").status_code == 404
    operator = api_client(Role.OPERATOR)
    made = operator.post("/api/v1/rollouts", order, content_type="application/json").json()

    def post(verb: str, **body: Any) -> Any:
        return operator.post(f"/api/v1/rollouts/{made['id']}/{verb}", body, content_type="application/json")

    assert post("clone", version=0).status_code == 404
    far = post("schedule", start_at="9999-12-31T23:59:59-12:00")
    assert (far.status_code, far.json()["detail"]) == (422, "9999-12-31 is more than a hundred years ahead")
