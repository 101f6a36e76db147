"""Every page: who may see it, that it works empty and full, and that the number of queries does not grow with rows."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern

from fleet.accounts.roles import Role
from fleet.dashboard.urls import urlpatterns
from fleet.inventory.models import DeviceApp
from tests.factories import (
    ArtifactFactory,
    DatasetFactory,
    DeviceFactory,
    GroupFactory,
    JobFactory,
    VersionFactory,
)
from tests.fleet.dashboard.conftest import Login
from tests.fleet.dashboard.rows import rollout

PUBLIC = {"login", "logout", "stream"}
PLAIN = [
    p.name
    for p in urlpatterns
    if isinstance(p, URLPattern) and "<" not in str(p.pattern) and p.name not in PUBLIC
]
LISTS = [
    "/",
    "/models/",
    "/datasets/",
    "/jobs/",
    "/devices/",
    "/groups/",
    "/rollouts/",
    "/experiments/",
    "/targets/",
    "/telemetry/",
    "/search/?q=e",
]


def path_of(name: str) -> str:
    """The address of a page without arguments."""
    return "/" + next(str(p.pattern) for p in urlpatterns if p.name == name)


ADMINS = ("enrolment", "notifications")


@pytest.mark.parametrize("name", PLAIN)
def test_a_page_sends_strangers_to_the_log_in_and_works_when_there_is_nothing_yet(
    name: str, login: Login
) -> None:
    path = path_of(str(name))
    assert Client().get(path).headers["Location"].startswith("/login/")
    assert login(Role.ADMIN).get(path).status_code == 200


@pytest.mark.parametrize("name", PLAIN)
def test_a_viewer_reads_everything_but_what_only_administrators_see(name: str, login: Login) -> None:
    assert login().get(path_of(str(name))).status_code == (403 if name in ADMINS else 200)


@pytest.mark.parametrize(
    "path",
    [
        "/models/new/",
        "/datasets/upload/",
        "/jobs/new/",
        "/groups/new/",
        "/rollouts/new/",
        "/experiments/new/",
        "/enrolment/",
        "/devices/d/command/",
        "/rollouts/1/roll-back/",
    ],
)
def test_a_viewer_changes_nothing_and_reads_which_role_is_missing(path: str, login: Login) -> None:
    answer = login().post(path, {})
    assert answer.status_code == 403
    assert "does not have the role" in answer.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/models/x/",
        "/models/x/1/",
        "/jobs/9/",
        "/devices/x/",
        "/groups/x/",
        "/rollouts/9/",
        "/datasets/9/",
        "/artifacts/9/",
        "/nowhere/",
        "/telemetry/?device=x",
    ],
)
def test_what_is_not_there_is_a_404_with_the_way_back(path: str, login: Login) -> None:
    answer = login().get(path)
    assert answer.status_code == 404
    assert "Back to the overview" in answer.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/99999999999999999999/",
        "/devices/?page=x&sort=-nothing",
        "/search/?q=%00",
        "/telemetry/?artifact=9999999999999999999",
        "/rollouts/new/?dry=1&version=x&group=%00",
    ],
)
def test_nonsense_in_an_address_never_breaks_a_page(path: str, login: Login) -> None:
    DeviceFactory()
    assert login(Role.ADMIN).get(path).status_code in (200, 404)


def one_more() -> None:
    """One more row of everything a list shows."""
    artifact = ArtifactFactory()
    group = GroupFactory()
    device = DeviceFactory(groups=[group])
    DeviceApp.objects.create(device=device, artifact=artifact, artifact_sha256=artifact.sha256)
    JobFactory(version=artifact.version)
    DatasetFactory()
    VersionFactory()
    rollout(artifact, [device], group)


@pytest.mark.parametrize("path", LISTS)
def test_a_list_asks_the_database_as_often_for_five_rows_as_for_two(path: str, login: Login) -> None:
    client = login(Role.ADMIN)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            assert client.get(path).status_code == 200
        return len(seen)

    one_more()
    one_more()
    client.get(path)
    few = queries()
    for _ in range(3):
        one_more()
    assert queries() == few


def test_pages_carry_no_script_or_style_that_the_policy_would_refuse(login: Login) -> None:
    answer = login(Role.ADMIN).get("/")
    policy, page = answer.headers["Content-Security-Policy"], answer.content.decode()
    nonce = page.split('<script nonce="')[1].split('"')[0]
    assert f"'nonce-{nonce}'" in policy
    for forbidden in ("onclick=", "onchange=", "<style", "http://cdn", "https://cdn"):
        assert forbidden not in page
