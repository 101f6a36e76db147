"""Tokens: made once, shown once, refused when unknown, expired, revoked or of somebody who left."""

from datetime import timedelta

import pytest
from auditlog.models import LogEntry
from django.test import Client
from django.utils import timezone

from fleet.accounts import services
from fleet.accounts.models import ApiToken
from fleet.accounts.roles import Role
from fleet.errors import Refused
from tests.factories import UserFactory, api_client

pytestmark = pytest.mark.django_db


def test_a_token_says_who_asks_and_what_they_may() -> None:
    answer = api_client(Role.ENGINEER).get("/api/v1/me")
    assert answer.status_code == 200
    assert answer.json()["roles"] == ["engineer", "viewer"]


@pytest.mark.parametrize(
    "header", ["", "Bearer ", "Bearer tf_wrong", "Bearer other", "Basic eDp5", "Bearer tf_\x00"]
)
def test_whoever_sends_no_valid_token_is_told_what_to_send(header: str) -> None:
    answer = Client(headers={"Authorization": header} if header else {}).get("/api/v1/me")
    assert answer.status_code == 401
    assert "Bearer tf_" in answer.json()["remedy"]


def test_revoked_expired_and_orphaned_tokens_open_nothing() -> None:
    user = UserFactory()
    soon = timezone.now() + timedelta(minutes=5)
    token, text = services.make_token(user, "ci", expires_at=soon)
    assert services.find_token(text) == token
    assert services.find_token(text, now=soon) is None
    user.is_active = False
    user.save()
    assert services.find_token(text) is None
    user.is_active = True
    user.save()
    services.revoke(token)
    assert services.find_token(text) is None


def test_only_a_digest_is_kept() -> None:
    client = api_client(Role.VIEWER)
    made = client.post("/api/v1/tokens", {"name": "laptop"}, content_type="application/json")
    assert made.status_code == 201
    text = made.json()["token"]
    assert text.startswith("tf_")
    rows = ApiToken.objects.filter(name="laptop").values_list("digest", "prefix")
    assert all(text not in column for row in rows for column in row)
    assert text not in client.get("/api/v1/tokens").content.decode()


def test_last_use_is_written_at_most_once_a_minute(django_assert_num_queries) -> None:  # type: ignore[no-untyped-def]
    _, text = services.make_token(UserFactory(), "busy")
    now = timezone.now()
    services.find_token(text, now)
    with django_assert_num_queries(1):
        services.find_token(text, now + timedelta(seconds=30))
    services.find_token(text, now + timedelta(seconds=61))
    assert ApiToken.objects.get().last_used_at == now + timedelta(seconds=61)


def test_revoking_over_the_api_ends_the_token_and_strangers_do_not_see_it() -> None:
    owner, stranger = UserFactory(), api_client(Role.VIEWER)
    token, text = services.make_token(owner, "mine")
    assert stranger.delete(f"/api/v1/tokens/{token.pk}").status_code == 404
    assert api_client(user=owner).delete(f"/api/v1/tokens/{token.pk}").status_code == 204
    assert services.find_token(text) is None


def test_an_admin_makes_lists_and_revokes_tokens_of_others() -> None:
    other, admin = UserFactory(), api_client(Role.ADMIN)
    body = {"name": "robot", "user": other.username}
    assert (
        api_client(Role.OPERATOR).post("/api/v1/tokens", body, content_type="application/json").status_code
        == 403
    )
    made = admin.post("/api/v1/tokens", body, content_type="application/json").json()
    assert made["user"] == other.username
    listed = admin.get("/api/v1/tokens?everyone=true").json()["items"]
    assert made["id"] in [each["id"] for each in listed]
    assert api_client(Role.VIEWER).get("/api/v1/tokens?everyone=true").status_code == 403
    assert admin.delete(f"/api/v1/tokens/{made['id']}").status_code == 204


def test_a_token_needs_a_name_and_a_future() -> None:
    with pytest.raises(Refused, match="1 to 100"):
        services.make_token(UserFactory(), "  ")
    with pytest.raises(Refused, match="expired already"):
        services.make_token(UserFactory(), "x", expires_at=timezone.now())


def test_a_session_works_but_only_with_the_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(UserFactory())
    assert client.get("/api/v1/me").status_code == 200
    answer = client.post("/api/v1/tokens", {"name": "x"}, content_type="application/json")
    assert answer.status_code == 403


def test_who_did_it_over_the_api_is_kept_and_secrets_are_not() -> None:
    user = UserFactory(roles=[Role.ENGINEER])
    client = api_client(user=user)
    client.post("/api/v1/models", {"slug": "digits"}, content_type="application/json")
    made = client.post("/api/v1/tokens", {"name": "ci"}, content_type="application/json").json()
    client.delete(f"/api/v1/tokens/{made['id']}")
    kept = list(LogEntry.objects.filter(actor=user))
    assert sorted((entry.content_type.model, entry.get_action_display()) for entry in kept) == [
        ("apitoken", "create"),
        ("apitoken", "update"),
        ("model", "create"),
    ]
    assert "digest" not in str([entry.changes for entry in kept])
