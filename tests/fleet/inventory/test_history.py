"""What ran where and when: by device, group, version and time, over the API and on its page."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from fleet.accounts.roles import Role
from fleet.inventory.models import InstalledSpan
from tests.factories import ArtifactFactory, GroupFactory, UserFactory, VersionFactory, api_client
from tests.fleet.devices_by_hand import hand_device
from tests.fleet.rollouts.world import NOW

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def ask(client: Client, **question: Any) -> list[tuple[str, int, str | None]]:
    """Device, version and end of each span."""
    answer = client.get("/api/v1/history", question)
    assert answer.status_code == 200, answer.content
    return [(each["device"], each["version"], each["until"]) for each in answer.json()["items"]]


def test_one_query_over_all_time() -> None:
    lab = GroupFactory(slug="lab")
    first = ArtifactFactory()
    second = ArtifactFactory(version=VersionFactory(model=first.version.model))
    old, new = hand_device("old", NOW, groups=[lab]).row, hand_device("new", NOW).row

    def ran(device: Any, artifact: Any, since: datetime, until: datetime | None) -> None:
        facts = {"artifact": artifact, "artifact_sha256": artifact.sha256, "app": "main"}
        InstalledSpan.objects.create(device=device, since=since, until=until, **facts)

    ran(old, first, NOW, NOW + 2 * DAY)
    ran(old, second, NOW + 2 * DAY, None)
    ran(new, first, NOW + DAY, None)
    client = api_client(Role.VIEWER)
    assert [row[:2] for row in ask(client)] == [("old", 2), ("new", 1), ("old", 1)]
    assert [row[:2] for row in ask(client, group="lab")] == [("old", 2), ("old", 1)]
    at = (NOW + DAY / 2).isoformat()
    assert [row[:2] for row in ask(client, since=at, until=at)] == [("old", 1)]
    assert [row[0] for row in ask(client, model=first.version.model.slug, version=1)] == ["new", "old"]
    assert ask(client, device="old", since=(NOW + 3 * DAY).isoformat()) == [("old", 2, None)]
    swapped = client.get("/api/v1/history", {"since": (NOW + DAY).isoformat(), "until": NOW.isoformat()})
    assert (swapped.status_code, swapped.json()["error"]) == (422, "refused")
    assert client.get("/api/v1/history", {"group": "nobody"}).status_code == 404
    page = Client()
    page.force_login(UserFactory(roles=[Role.VIEWER]))
    shown = page.get("/history/", {"device": "old", "until": f"{NOW + DAY:%Y-%m-%dT%H:%M}"}).content.decode()
    assert f"{first.version}</a>" in shown
    assert f"{second.version}</a>" not in shown
    assert "ends before it begins" in page.get("/history/?since=2027-01-02&until=2027-01-01").content.decode()
