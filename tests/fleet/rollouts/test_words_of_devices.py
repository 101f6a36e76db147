"""What devices add to the states of their deliveries: reasons on the way, restarts, and words that come late."""

import pytest
from django.test import Client

from device_agent.core import room
from fleet.inventory.models import Device
from fleet.rollouts import notices
from fleet.rollouts.models import Delivery, Notice
from fleet.telemetry import alerts
from tests.fleet.rollouts.world import World

pytestmark = pytest.mark.django_db


def page(world: World, address: str) -> str:
    """A page of the dashboard as its operator reads it."""
    client = Client()
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
        assert "the agent starts again, and installs before it serves" in page(world, address).replace("The", "the")
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
