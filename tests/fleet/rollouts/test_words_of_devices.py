"""What devices add to the states of their deliveries: reasons on the way, restarts, and words that come late."""

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from device_agent.core import room
from fleet import events
from fleet.inventory.models import Device
from fleet.rollouts import notices, services
from fleet.rollouts.models import Delivery, Notice, Sending
from fleet.telemetry import alerts
from tests.factories import ArtifactFactory, VersionFactory
from tests.fleet.pages import Reader
from tests.fleet.rollouts.world import World

SOON_S = 10

pytestmark = pytest.mark.django_db


def page(world: World, address: str) -> str:
    """A page of the dashboard as its operator reads it."""
    client = Reader()
    client.force_login(world.user)
    return client.get(address).content.decode()


def test_a_device_that_starts_again_in_the_middle_goes_on_and_says_why() -> None:
    """From testing back to downloading with a new boot: the operator reads why, and nothing counts against the rollout."""
    world = World(2)
    notices.Hook.objects.create(kind="email", address="a@example.org")
    rollout = world.create(waves=["100%"])
    device, other = world.offered()
    for state in ("downloading", "verifying", "testing"):
        device.status(state, world.now)
    device.status("downloading", world.now, reason=room.AFRESH, attempt=1)
    device.restart(world.now)
    world.tick(2)
    row = Delivery.objects.get(device=device.row)
    assert (row.state, row.reason, row.attempt, row.tries) == ("downloading", room.AFRESH, 1, 0)
    assert Device.objects.get(pk=device.row.pk).boot == 2
    for address in (f"/rollouts/{rollout.pk}/", f"/devices/{device.name}/"):
        assert "the agent starts again, and installs before it serves" in page(world, address).replace(
            "The", "the"
        )
    world.succeed([device, other])
    world.tick(4)
    row.refresh_from_db()
    assert (row.state, row.reason, row.attempt, row.tries) == ("succeeded", "", 1, 0)
    assert room.AFRESH in [line["reason"] for line in row.history]
    assert world.fresh(rollout).state == "succeeded"
    assert list(Notice.objects.values_list("event", flat=True)) == ["finished"]
    assert not alerts.review(world.now)


def test_what_a_device_adds_to_a_state_it_told_before_is_shown_once() -> None:
    """It stops serving while it downloads; when the new model serves, that is over."""
    world = World(1)
    rollout = world.create(waves=["100%"])
    (device,) = world.offered()
    device.status("downloading", world.now)
    for _ in range(2):
        device.status("downloading", world.now, reason=room.NO_ANSWERS)
    device.status("downloading", world.now)
    row = Delivery.objects.get(device=device.row)
    assert row.reason == room.NO_ANSWERS
    assert [line["reason"] for line in row.history] == ["", "", room.NO_ANSWERS]
    assert "no answers until the new one is here" in page(world, f"/rollouts/{rollout.pk}/")
    device.status("testing", world.now)
    assert Delivery.objects.get(device=device.row).reason == room.NO_ANSWERS
    device.status("trial", world.now)
    assert Delivery.objects.get(device=device.row).reason == ""


def test_a_late_word_about_an_ended_delivery_counts_the_bytes_of_that_one_alone() -> None:
    """The first was given up, a newer version is offered; then the device wakes up and fetches the first."""
    world = World(1)
    given_up = world.create(waves=["100%"], delivery_timeout_s=100)
    (device,) = world.offered()
    first = device.desired()["delivery"]
    world.tick(1, minutes=5)
    assert Delivery.objects.get().state == "timed_out"
    services.abort(world.user, given_up, "keep", now=world.now)
    newest = ArtifactFactory(version=VersionFactory(model=world.v1.version.model))
    rollout = world.create(newest.version, waves=["100%"])
    offered_at = rollout.deliveries.get().offered_at
    woke_at = world.now + timedelta(hours=1)
    device.status("downloading", woke_at, delivery=first)
    assert list(Sending.objects.order_by("pk").values_list("at", flat=True)) == [woke_at, offered_at]
    assert rollout.deliveries.get().state == "offered"


@pytest.mark.usefixtures("valkey")
def test_pages_of_devices_hear_that_nobody_asks_them_any_more(
    django_capture_on_commit_callbacks: Any,
) -> None:
    """Those that were never asked, too: their pages say that the delivery is cancelled."""
    with django_capture_on_commit_callbacks(execute=True):
        world = World(3)
        rollout = world.create()
    with closing(events.connection().pubsub(ignore_subscribe_messages=True)) as heard:
        heard.subscribe(events.CHANGES)
        heard.get_message(timeout=SOON_S)
        with django_capture_on_commit_callbacks(execute=True):
            services.abort(world.user, rollout, "keep", now=world.now)
        told = heard.get_message(timeout=SOON_S)["data"].decode().split()
    assert {f"device:{name}" for name in world.devices} <= set(told)
