"""Devices, one device, groups, enrolment, tokens."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from fleet.accounts.models import ApiToken
from fleet.accounts.roles import Role
from fleet.inventory.models import Command, Device, DeviceGroup, EnrolmentToken
from tests.factories import DeviceFactory, GroupFactory, TargetFactory
from tests.fleet.dashboard.conftest import Login


@pytest.fixture
def fleet(db: None) -> None:
    """One device of each presence."""
    now = timezone.now()
    DeviceFactory(name="fine", online=True, last_seen_at=now, labels={"site": "berlin"})
    DeviceFactory(name="late", online=True, last_seen_at=now - timedelta(minutes=9))
    DeviceFactory(name="gone", online=False, last_seen_at=now - timedelta(hours=2))
    DeviceFactory(name="unborn")
    DeviceFactory(name="stolen", state=Device.State.REVOKED)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("presence=in-time", {"fine"}),
        ("presence=overdue", {"late"}),
        ("presence=offline", {"gone"}),
        ("presence=never", {"unborn"}),
        ("presence=revoked", {"stolen"}),
        ("q=berlin", {"fine"}),
        ("q=one", {"gone"}),
        ("group=ruled", {"fine"}),
        ("presence=nonsense", {"fine", "late", "gone", "unborn", "stolen"}),
    ],
)
def test_filters_mean_the_same_words_as_the_table(
    query: str, names: set[str], fleet: None, login: Login
) -> None:
    GroupFactory(slug="ruled", rule="site=berlin")
    page = login().get(f"/devices/?{query}").content.decode()
    assert set(re.findall(r'data-row href="/devices/(\w+)/"', page)) == names


def test_the_csv_has_the_words_of_the_table_and_no_formulas(fleet: None, login: Login) -> None:
    DeviceFactory(name="-1", labels={})
    lines = login().get("/devices/?csv=1").content.decode().splitlines()
    assert lines[0] == "Device,Presence,Target,Runs,Delivery,Groups,Last heard"
    assert any(line.startswith("late,overdue,raspberry-pi-4") for line in lines), lines
    assert any(line.startswith("'-1,") for line in lines)


def test_a_device_page_shows_what_it_is_and_says_what_is_not_known(fleet: None, login: Login) -> None:
    page = login().get("/devices/fine/").content.decode()
    for text in (
        "in time",
        "enrolled as raspberry-pi-4",
        "what it runs is not known",
        "No inferences were reported",
    ):
        assert text in page


def test_commands_labels_and_revoking_work_without_javascript(fleet: None, login: Login) -> None:
    client = login(Role.ADMIN)
    client.post("/devices/fine/command/", {"name": "selftest"})
    assert Command.objects.get().name == "selftest"
    client.post("/devices/fine/edit/", {"labels": "site=hamburg\nfloor=2"})
    assert Device.objects.get(name="fine").labels == {"site": "hamburg", "floor": "2"}
    assert "write name=value" in client.post("/devices/fine/edit/", {"labels": "nonsense"}).content.decode()
    assert "Revoke fine?" in client.get("/devices/fine/").content.decode()
    client.post("/devices/fine/revoke/")
    assert Device.objects.get(name="fine").state == Device.State.REVOKED
    refused = client.post("/devices/fine/command/", {"name": "selftest"}, follow=True)
    assert "hears no commands" in refused.content.decode()


def test_groups_are_made_changed_and_deleted(fleet: None, login: Login) -> None:
    client = login(Role.OPERATOR)
    client.post(
        "/groups/new/",
        {"slug": "hand", "name": "", "description": "", "rule": "", "devices": ["fine", "late"]},
    )
    assert set(DeviceGroup.objects.get(slug="hand").members.values_list("name", flat=True)) == {
        "fine",
        "late",
    }
    client.post("/groups/hand/edit/", {"name": "By hand", "rule": "", "devices": ["gone"]})
    assert "gone" in client.get("/groups/hand/").content.decode()
    bad = client.post("/groups/new/", {"slug": "bad", "rule": "site="})
    assert "The rule cannot be read" in bad.content.decode()
    client.post("/groups/hand/delete/")
    assert not DeviceGroup.objects.filter(slug="hand").exists()


def test_an_enrolment_token_is_shown_once_with_the_command_to_run(login: Login) -> None:
    client = login(Role.ADMIN)
    form = {"target": TargetFactory().slug, "uses": "3", "expires_in_s": "3600", "labels": "site=berlin"}
    answer = client.post("/enrolment/", form)
    page = answer.content.decode()
    assert re.search(r"python -m device_agent enrol --server \S+ --token tfe_\S+ --device NAME", page)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "tfe_" in client.get("/enrolment/").content.decode()  # the first characters, to tell tokens apart
    assert "--token" not in client.get("/enrolment/").content.decode()
    assert EnrolmentToken.objects.get().uses_left == 3


def test_ones_own_token_is_shown_once_and_revoked(login: Login) -> None:
    client = login()
    page = client.post("/account/", {"name": "laptop", "expires": "0"}).content.decode()
    text = re.search(r"tf_[\w-]{40,}", page)
    assert text
    assert text.group() not in client.get("/account/").content.decode()
    token = ApiToken.objects.get()
    assert login().post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    client.post(f"/account/tokens/{token.pk}/revoke/")
    token.refresh_from_db()
    assert token.revoked_at is not None
