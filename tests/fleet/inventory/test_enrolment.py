"""Enrolment: tokens once, provisioning, and names that are taken."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.inventory.credentials import device_credentials, gateway_credentials
from fleet.inventory.models import BrokerGrant, Device, EnrolmentToken
from tests.factories import GroupFactory, TargetFactory, api_client

pytestmark = pytest.mark.django_db


def make_token(**changes: Any) -> str:
    """A token's text, as an admin gets it over the API."""
    TargetFactory(slug="raspberry-pi-4")
    body = {"target": "raspberry-pi-4", **changes}
    answer = api_client(Role.ADMIN).post("/api/v1/enrolment-tokens", body, content_type="application/json")
    assert answer.status_code == 201, answer.content
    text: str = answer.json()["token"]
    return text


def enrol(token: str, device: str) -> Any:
    """What an unknown device gets."""
    return Client().post("/api/v1/enrol", {"token": token, "device": device}, content_type="application/json")


def test_a_device_gets_its_provisioning_and_the_broker_a_grant() -> None:
    """Everything it needs, and nothing of it in the database."""
    GroupFactory(slug="lab")
    token = make_token(groups=["lab"], labels={"site": "berlin"}, report_s=5)
    answer = enrol(token, "pi-1")
    assert answer.status_code == 200, answer.content
    given = answer.json()
    mine = device_credentials("pi-1", 1)
    assert (given["username"], given["password"], given["client_id"]) == (
        "pi-1",
        mine.password,
        mine.client_id,
    )
    assert (given["target"], given["runtime"], given["report_s"]) == ("raspberry-pi-4", "onnxruntime", 5)
    assert given["keys"]
    assert given["client_id"].startswith("pi-1-")
    device = Device.objects.get()
    assert [group.slug for group in device.groups.all()] == ["lab"]
    assert device.labels == {"site": "berlin"}
    assert BrokerGrant.objects.get().due
    stored = str(list(Device.objects.values())) + str(list(EnrolmentToken.objects.values()))
    assert token not in stored
    assert mine.password not in stored


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "../etc", "pi/1", "pi.1", "+", "ü"])
def test_names_that_are_no_topic_are_refused(name: str) -> None:
    """A device's name becomes part of topics and files."""
    assert enrol(make_token(), name).status_code == 422
    assert not Device.objects.exists()


def test_a_token_works_as_often_and_as_long_as_it_says() -> None:
    """Unknown, used up and expired look the same to a stranger."""
    token = make_token(uses=2)
    assert [enrol(token, f"pi-{n}").status_code for n in range(3)] == [200, 200, 422]
    late = make_token(expires_in_s=60)
    EnrolmentToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert enrol(late, "pi-9").json()["detail"] == enrol("tfe_nonsense", "pi-9").json()["detail"]


def test_export_only_targets_are_refused_with_the_sentence() -> None:
    """At the token already."""
    TargetFactory(slug="stm32f746")
    answer = api_client(Role.ADMIN).post(
        "/api/v1/enrolment-tokens", {"target": "stm32f746"}, content_type="application/json"
    )
    assert answer.status_code == 422
    assert "export only" in answer.json()["detail"]


def test_a_lost_state_folder_gets_a_new_secret_when_the_old_device_is_gone() -> None:
    """The name stays, the old secret ends; nobody takes over a device that is online."""
    token = make_token(uses=9)
    first = enrol(token, "pi-1").json()
    Device.objects.update(online=True, last_seen_at=timezone.now())
    taken = enrol(token, "pi-1")
    assert (taken.status_code, taken.json()["error"]) == (409, "conflict")
    Device.objects.update(online=False)
    again = enrol(token, "pi-1").json()
    assert again["password"] != first["password"]
    assert BrokerGrant.objects.get().generation == 2
    assert Device.objects.count() == 1


def test_a_taken_name_is_not_given_to_another_target_or_a_revoked_device() -> None:
    """With the way out in the answer, and without losing a use of the token."""
    enrol(make_token(), "pi-1")
    TargetFactory(slug="raspberry-pi-5")
    other = make_token(target="raspberry-pi-5", uses=1)
    assert "raspberry-pi-4" in enrol(other, "pi-1").json()["detail"]
    assert enrol(other, "pi-2").status_code == 200
    client = api_client(Role.ADMIN)
    client.post("/api/v1/devices/pi-1/revoke")
    assert "revoked" in enrol(make_token(), "pi-1").json()["detail"]
    client.post("/api/v1/devices/pi-1/reinstate")
    assert enrol(make_token(), "pi-1").status_code == 200


def test_secrets_differ_by_device_generation_and_purpose() -> None:
    """And the same ones come out again whenever they are asked for."""
    every = [device_credentials(name, n) for name in ("a", "b") for n in (1, 2)] + [gateway_credentials(0)]
    texts = [text for mine in every for text in (mine.password, mine.client_id)]
    assert len(set(texts)) == len(texts)
    assert device_credentials("a", 1) == every[0]
    assert len({gateway_credentials(n).client_id for n in range(3)}) == 3
