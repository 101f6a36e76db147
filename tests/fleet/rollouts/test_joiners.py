"""Devices that enter the group when a rollout has begun: while it runs, is paused, held, or over."""

from typing import Any

import pytest

from fleet.inventory.models import DeviceApp
from fleet.rollouts import services
from fleet.rollouts.models import Rollout
from tests.factories import ArtifactFactory, VersionFactory
from tests.fleet.rollouts.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    """Two devices."""
    return World(2)


def enter(world: World, name: str) -> None:
    """A device is put into the group, and a minute passes."""
    world.devices[name] = world._device(name)
    world.tick(2, seconds=61)


def knows(rollout: Rollout, name: str) -> bool:
    """Whether the rollout has a delivery to the device."""
    return rollout.deliveries.filter(device__name=name).exists()


def finished(world: World, **who: Any) -> Rollout:
    """A rollout that everybody has taken."""
    rollout = world.create(waves=["100%"], who=who)
    world.succeed(world.offered())
    world.tick(4)
    rollout = world.fresh(rollout)
    assert rollout.state == "succeeded"
    return rollout


def test_devices_that_enter_the_group_are_asked_in_the_last_wave(world: World) -> None:
    """Looked for once a minute, while the rollout runs; the decision is noted."""
    rollout = world.create(waves=[1, "100%"])
    enter(world, "pi-9")
    joined = rollout.deliveries.get(device__name="pi-9")
    assert (joined.wave is not None and joined.wave.number, joined.position) == (2, 3)
    notes = list(rollout.decisions.filter(verb="join").values_list("sentence", flat=True))
    assert notes == ["1 device that entered the group is asked in wave 2"]
    other = world.create(version=world.v2.version, waves=["100%"], who={"late_joiners": "ignore"}, priority=5)
    enter(world, "pi-10")
    assert not knows(other, "pi-10")


def test_while_paused_or_held_nobody_joins_and_afterwards_they_do(world: World) -> None:
    rollout = world.create(waves=[1, "100%"])
    services.pause(world.user, rollout)
    enter(world, "pi-8")
    assert not knows(rollout, "pi-8")
    services.resume(world.user, world.fresh(rollout))
    world.tick()
    assert knows(rollout, "pi-8")
    world.offered()[0].status("failed", world.now)
    world.tick(3)
    assert world.fresh(rollout).state == "held"
    enter(world, "pi-9")
    assert not knows(rollout, "pi-9")
    services.advance(world.user, world.fresh(rollout), now=world.now)
    world.tick()
    assert knows(rollout, "pi-9")


def test_who_enters_just_before_the_end_belongs_to_it(world: World) -> None:
    """Less than a minute after the last look."""
    rollout = world.create(waves=["100%"])
    world.devices["pi-9"] = world._device("pi-9")
    world.succeed(world.offered())
    world.tick(4)
    assert [device.name for device in world.offered()] == ["pi-9"]
    world.succeed(world.offered())
    world.tick(4)
    assert world.fresh(rollout).reason == f"3 of 3 devices run {world.v2.version}"


def test_a_rollout_that_is_over_opens_again_only_where_that_was_wanted(world: World) -> None:
    over = finished(world)
    enter(world, "pi-8")
    assert (world.fresh(over).state, knows(over, "pi-8")) == ("succeeded", False)


def test_a_rollout_that_always_takes_joiners_opens_again_until_another_begins(world: World) -> None:
    rollout = finished(world, late_joiners="always")
    enter(world, "pi-8")
    assert world.fresh(rollout).state == "running"
    assert [device.name for device in world.offered()] == ["pi-8"]
    world.succeed(world.offered())
    world.tick(4)
    assert world.fresh(rollout).reason == f"3 of 3 devices run {world.v2.version}"
    v3 = ArtifactFactory(version=VersionFactory(model=world.v1.version.model))
    ahead = world._device("pi-7")
    DeviceApp.objects.filter(device=ahead.row).update(artifact=v3, artifact_sha256=v3.sha256)
    world.tick(2, seconds=61)
    assert {"device": "pi-7", "reason": "runs version 3, which is newer"} in world.fresh(rollout).dropped
    world.create(version=v3.version, waves=["100%"])
    enter(world, "pi-9")
    assert world.fresh(rollout).state == "succeeded"
    assert not knows(rollout, "pi-9")


def test_a_device_that_is_taken_is_looked_at_again_when_it_is_free(world: World) -> None:
    """Another group's rollout is at work on it when it enters this one."""
    rollout = world.create(waves=[1, "100%"])
    guest = world._device("pi-9")
    world.devices["pi-9"] = guest
    lab, world.group = world.group, type(world.group).objects.create(slug="yard")
    guest.row.groups.set([world.group])
    other = world.create(version=world.v2.version, waves=["100%"])
    guest.row.groups.add(lab)
    world.tick(2, seconds=61)
    assert not knows(rollout, "pi-9")
    services.abort(world.user, world.fresh(other), "keep", now=world.now)
    world.tick(2, seconds=61)
    assert knows(rollout, "pi-9")
