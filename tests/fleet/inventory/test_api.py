"""The inventory over REST: groups by hand and by rule, labels, roles, errors with a way out."""

from typing import Any

import pytest
from django.test import Client

from fleet.accounts.roles import Role
from fleet.inventory.models import BrokerGrant, Device
from tests.factories import DeviceFactory, TargetFactory, api_client

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    """An operator."""
    return api_client(Role.OPERATOR)


def post(client: Client, path: str, body: Any = None) -> Any:
    """POST as JSON."""
    return client.post(f"/api/v1{path}", body or {}, content_type="application/json")


def patch(client: Client, path: str, body: Any) -> Any:
    """PATCH as JSON."""
    return client.patch(f"/api/v1{path}", body, content_type="application/json")


def test_a_rule_follows_labels(client: Client) -> None:
    """A device joins and leaves by its labels and target."""
    DeviceFactory(name="pi-1", labels={"site": "berlin"})
    DeviceFactory(name="pi-2", target=TargetFactory(slug="raspberry-pi-5"))
    made = post(client, "/groups", {"slug": "berlin", "rule": "site=berlin or target=raspberry-pi-5"})
    assert made.status_code == 201, made.content
    assert made.json()["devices"] == ["pi-1", "pi-2"]
    patch(client, "/devices/pi-1", {"labels": {"site": "paris"}})
    assert client.get("/api/v1/groups/berlin").json()["devices"] == ["pi-2"]
    listed = client.get("/api/v1/devices?group=berlin").json()["items"]
    assert [device["name"] for device in listed] == ["pi-2"]


def test_a_group_by_hand(client: Client) -> None:
    """Members are replaced, unknown ones named."""
    DeviceFactory(name="pi-1")
    DeviceFactory(name="pi-2")
    post(client, "/groups", {"slug": "lab", "devices": ["pi-1"]})
    put = client.put("/api/v1/groups/lab/devices", {"devices": ["pi-2"]}, content_type="application/json")
    assert put.json()["devices"] == ["pi-2"]
    unknown = client.put(
        "/api/v1/groups/lab/devices", {"devices": ["x", "y"]}, content_type="application/json"
    )
    assert unknown.status_code == 404
    assert unknown.json()["problems"] == ["unknown device: x", "unknown device: y"]
    assert client.delete("/api/v1/groups/lab").status_code == 204


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"slug": "x", "rule": "site="}, 422, "at character 6"),
        ({"slug": "A B"}, 422, "no slug"),
        ({"slug": "x", "rule": "a=b", "devices": ["pi-1"]}, 422, "either a rule or a list"),
        ({"slug": "taken"}, 409, "is here already"),
        ({"slug": "x", "devices": ["nobody"]}, 404, "no device 'nobody'"),
    ],
)
def test_groups_that_cannot_be(client: Client, body: dict[str, Any], status: int, words: str) -> None:
    """Each with the reason."""
    DeviceFactory(name="pi-1")
    post(client, "/groups", {"slug": "taken"})
    answer = post(client, "/groups", body)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert answer.json()["remedy"]


@pytest.mark.parametrize(
    "labels", [{"target": "x"}, {"a b": "c"}, {"and": "c"}, {"a": "it's"}, {"a": ""}, {"a": "x" * 200}]
)
def test_labels_that_no_rule_could_name(client: Client, labels: dict[str, str]) -> None:
    """Refused, and nothing changes."""
    DeviceFactory(name="pi-1", labels={"site": "berlin"})
    assert patch(client, "/devices/pi-1", {"labels": labels}).status_code == 422
    assert Device.objects.get().labels == {"site": "berlin"}


def test_commands(client: Client) -> None:
    """Known ones are queued, others refused with the list."""
    DeviceFactory(name="pi-1")
    sent = post(client, "/devices/pi-1/commands", {"name": "selftest"})
    assert (sent.status_code, sent.json()["state"]) == (202, "pending")
    assert "selftest" in post(client, "/devices/pi-1/commands", {"name": "format"}).json()["remedy"]
    assert len(client.get("/api/v1/devices/pi-1/commands").json()["items"]) == 1


def test_roles() -> None:
    """A viewer reads, an operator manages devices, only an admin revokes and makes tokens."""
    DeviceFactory(name="pi-1")
    viewer, operator, admin = (api_client(role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN))
    assert viewer.get("/api/v1/devices/pi-1").json()["presence"] == "never seen"
    assert patch(viewer, "/devices/pi-1", {"labels": {}}).status_code == 403
    assert post(viewer, "/devices/pi-1/commands", {"name": "hello"}).status_code == 403
    assert post(operator, "/devices/pi-1/revoke").status_code == 403
    assert post(operator, "/enrolment-tokens", {"target": "raspberry-pi-4"}).status_code == 403
    assert Client().get("/api/v1/devices").status_code == 401
    assert post(admin, "/devices/pi-1/revoke").json()["state"] == "revoked"
    grant = BrokerGrant.objects.get()
    assert (grant.allowed, grant.due) == (False, True)
    assert post(operator, "/devices/pi-1/commands", {"name": "hello"}).status_code == 409
    assert client_error(viewer, "/devices/nobody") == "there is no device 'nobody'"


def client_error(client: Client, path: str) -> str:
    """The sentence of an error."""
    text: str = client.get(f"/api/v1{path}").json()["detail"]
    return text
