"""One shape for every error of the API, and security headers on every answer."""

import pytest
from django.contrib.auth.models import User
from django.db import DataError, OperationalError
from django.test import Client

from fleet.accounts import api as accounts
from fleet.accounts.services import make_token

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return User.objects.create_user("ada", password="a-long-password")


@pytest.fixture
def api(user: User) -> Client:
    _, token = make_token(user, "test")
    return Client(headers={"Authorization": f"Bearer {token}"})


def test_without_a_token_the_answer_says_how_to_send_one(client):
    answer = client.get("/api/v1/me")
    assert answer.status_code == 401
    assert answer.json()["error"] == "unauthenticated"
    assert "Bearer" in answer.json()["remedy"]


def test_a_write_without_a_token_is_unauthenticated_too():
    # Ninja answers 403 for a missing CSRF token before it asks who is there.
    answer = Client(enforce_csrf_checks=True).post("/api/v1/tokens", {}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")


def test_a_session_needs_its_csrf_token(user):
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    answer = client.post("/api/v1/tokens", {"name": "stolen"}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")


@pytest.mark.parametrize("path", ["/api/v1/no-such-thing", "/api/v2/me", "/api/v1/models/none"])
def test_what_is_not_there_is_said_as_json(api, path):
    answer = api.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"
    assert answer.json()["detail"]


def test_every_invalid_field_is_named_at_once(api):
    answer = api.post("/api/v1/tokens", {"name": "", "expires_in_days": 0}, content_type="application/json")
    assert answer.status_code == 422
    body = answer.json()
    assert body["error"] == "invalid"
    assert [problem.partition(":")[0] for problem in body["problems"]] == ["name", "expires_in_days"]


def test_a_body_that_is_no_json_is_named(api):
    answer = api.post("/api/v1/tokens", "{broken", content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid"


def test_a_json_body_that_is_far_too_long_is_refused(api):
    answer = api.post("/api/v1/tokens", "x" * 5_000_000, content_type="application/json")
    assert answer.status_code == 413
    assert answer.json()["error"] == "too_large"


def test_a_bug_is_logged_and_never_shown(api, monkeypatch, caplog):
    def broken(user: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(accounts, "roles_of", broken)
    answer = api.get("/api/v1/me")
    assert answer.status_code == 500
    assert "secret detail" not in answer.content.decode()
    assert "secret detail" in caplog.text


def test_a_silent_database_is_unavailable_not_a_bug(api, monkeypatch):
    def silent(user: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(accounts, "roles_of", silent)
    answer = api.get("/api/v1/me")
    assert answer.status_code == 503
    assert "database" in answer.json()["detail"]


def test_what_the_database_cannot_keep_is_invalid_not_a_bug(api, monkeypatch):
    def too_long(user: object) -> None:
        raise DataError("value too long for type character varying(120)")

    monkeypatch.setattr(accounts, "roles_of", too_long)
    answer = api.get("/api/v1/me")
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert "too long" in answer.json()["detail"]


def test_no_list_is_given_out_whole(api):
    answer = api.get("/api/v1/models?limit=1001")
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert "less than or equal to 1000" in answer.json()["detail"]


def test_answers_carry_security_headers(client):
    answer = client.get("/healthz")
    policy = answer["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_the_schema_can_be_read(api):
    paths = api.get("/api/v1/openapi.json").json()["paths"]
    assert {"/api/v1/me", "/api/v1/health", "/api/v1/models", "/api/v1/devices", "/api/v1/rollouts"} <= set(
        paths
    )


def test_metrics_are_for_staff_and_tokens(client, api, user):
    assert client.get("/metrics").status_code == 401
    assert b"python_info" in api.get("/metrics").content
    client.force_login(user)
    assert client.get("/metrics").status_code == 401
    User.objects.filter(pk=user.pk).update(is_staff=True)
    assert client.get("/metrics").status_code == 200
