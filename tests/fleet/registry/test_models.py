"""Models and aliases over the API: who may, what is refused, and a history without gaps."""

import threading
from typing import Any

import pytest
from django.db import connection

from fleet.accounts.roles import Role
from fleet.errors import FleetError
from fleet.registry import services
from fleet.registry.models import AliasMove, CheckState, Model
from tests.factories import ArtifactFactory, ModelFactory, UserFactory, VersionFactory, api_client

pytestmark = pytest.mark.django_db
JSON = "application/json"


def test_a_model_is_made_listed_and_read() -> None:
    client = api_client(Role.ENGINEER)
    made = client.post("/api/v1/models", {"slug": "digits", "description": "8 x 8"}, content_type=JSON)
    assert made.status_code == 201
    assert made.json() == client.get("/api/v1/models/digits").json()
    assert made.json()["name"] == "digits"
    listed = client.get("/api/v1/models?limit=1").json()
    assert (listed["count"], len(listed["items"])) == (1, 1)
    again = client.post("/api/v1/models", {"slug": "digits"}, content_type=JSON)
    assert (again.status_code, again.json()["error"]) == (409, "duplicate")


@pytest.mark.parametrize("slug", ["", "Digits", "../etc", "a b", "-x", "é", "x" * 70])
def test_a_slug_that_is_no_address_is_refused(slug: str) -> None:
    answer = api_client(Role.ENGINEER).post("/api/v1/models", {"slug": slug}, content_type=JSON)
    assert answer.status_code == 422
    assert not Model.objects.exists()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_only_engineers_change_the_registry(role: Role) -> None:
    version, client = VersionFactory(), api_client(role)
    slug = version.model.slug
    assert client.get(f"/api/v1/models/{slug}/versions/1").status_code == 200
    artifact = ArtifactFactory(version=version)
    for method, path in [
        ("post", "/models"),
        ("put", f"/models/{slug}/aliases/champion"),
        ("post", "/targets"),
        ("post", f"/artifacts/{artifact.pk}/recall"),
    ]:
        body = {"slug": "x", "version": 1, "reason": "x", "name": "x", "runtime": "litert", "clock_hz": 1}
        body |= {"flash_total_bytes": 1, "ram_total_bytes": 1}
        answer = getattr(client, method)(f"/api/v1{path}", body, content_type=JSON)
        assert answer.status_code == 403, path
        assert "engineer" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/models/none",
        "/models/none/versions",
        "/models/none/versions/1",
        "/models/none/aliases/champion",
        "/datasets/99",
        "/targets/none",
        "/artifacts/99",
        "/artifacts/99/download",
    ],
)
def test_what_is_not_there_is_said_so(path: str) -> None:
    answer = api_client(Role.VIEWER).get(f"/api/v1{path}")
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


def test_an_alias_moves_and_every_move_is_kept() -> None:
    model = ModelFactory()
    VersionFactory.create_batch(2, model=model)
    client, url = api_client(Role.ENGINEER), f"/api/v1/models/{model.slug}/aliases/champion"
    for number, reason in [(1, "first"), (2, "better"), (2, "again"), (1, "worse in the field")]:
        answer = client.put(url, {"version": number, "reason": reason}, content_type=JSON)
        assert answer.json() == {"name": "champion", "version": number}
    history = client.get(f"{url}/history").json()["items"]
    moves = [(move["from_version"], move["to_version"], move["reason"]) for move in history]
    assert moves == [(2, 1, "worse in the field"), (1, 2, "better"), (None, 1, "first")]
    assert client.get(f"/api/v1/models/{model.slug}").json()["aliases"] == [
        {"name": "champion", "version": 1}
    ]


def test_an_alias_names_only_what_is_ready() -> None:
    version = VersionFactory(state=CheckState.CHECKING)
    url = f"/api/v1/models/{version.model.slug}/aliases/champion"
    answer = api_client(Role.ENGINEER).put(url, {"version": 1}, content_type=JSON)
    assert answer.status_code == 409
    assert "is checking" in answer.json()["detail"]
    with pytest.raises(FleetError, match="not a version of"):
        services.move_alias(ModelFactory(), "champion", version)
    with pytest.raises(FleetError, match="lower-case"):
        services.move_alias(version.model, "Not A Slug", version)


@pytest.mark.django_db(transaction=True)
def test_moves_at_the_same_time_form_one_chain() -> None:
    model = ModelFactory()
    versions, start = VersionFactory.create_batch(6, model=model), threading.Barrier(6)

    def move(version: Any) -> None:
        start.wait()
        services.move_alias(model, "champion", version)
        connection.close()

    threads = [threading.Thread(target=move, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moves = list(AliasMove.objects.order_by("id"))
    assert len(moves) == 6
    assert [move.from_version for move in moves] == [None, *(move.to_version for move in moves[:-1])]
    assert model.aliases.get().version == moves[-1].to_version


def test_artifacts_are_found_by_model_version_and_target() -> None:
    wanted, _ = ArtifactFactory(), ArtifactFactory(target__slug="raspberry-pi-5")
    client, model = api_client(Role.VIEWER), wanted.version.model.slug
    for query in (
        f"model={model}",
        f"model={model}&version=1&target=raspberry-pi-4",
        f"version=1&model={model}",
    ):
        found = client.get(f"/api/v1/artifacts?{query}").json()["items"]
        assert [each["id"] for each in found] == [wanted.pk], query
    assert client.get("/api/v1/artifacts?target=none").json()["items"] == []
    one = client.get(f"/api/v1/artifacts/{wanted.pk}").json()
    assert (one["accuracy_floor"], one["target"]) == (0.91, "raspberry-pi-4")


@pytest.mark.parametrize("metric", ["r2", "auc"])
def test_scores_that_are_no_shares_of_right_answers_are_no_floor(metric: str) -> None:
    figure = {"value": 0.3, "low": -0.1, "high": 0.5, "n": 90, "metric": metric}
    assert ArtifactFactory(measurements={"test_accuracy": figure}).accuracy_floor is None


def test_a_recall_needs_a_reason_and_happens_once() -> None:
    artifact, client = ArtifactFactory(), api_client(user=UserFactory(roles=[Role.ENGINEER]))
    url = f"/api/v1/artifacts/{artifact.pk}/recall"
    assert client.post(url, {"reason": " "}, content_type=JSON).status_code == 422
    assert (
        client.post(url, {"reason": "wrong labels"}, content_type=JSON).json()["recall_reason"]
        == "wrong labels"
    )
    assert client.post(url, {"reason": "again"}, content_type=JSON).status_code == 409
