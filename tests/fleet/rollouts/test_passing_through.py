"""Versions to pass through: installed on the way, and passed by on the way back."""

from typing import Any

import pytest

from fleet.registry import offers
from fleet.rollouts import services
from tests.factories import ArtifactFactory, VersionFactory
from tests.fleet.rollouts.world import World


@pytest.mark.django_db
def test_a_version_to_pass_through_is_installed_on_the_way() -> None:
    """From 1 by 2 to 3, on one delivery."""
    world = World(1)
    v3 = ArtifactFactory(version=VersionFactory(model=world.v1.version.model))
    rollout = world.create(
        version=v3.version, waves=["100%"], who={"must_pass_through": [world.v2.version.number]}
    )
    assert rollout.deliveries.get().artifact == world.v2
    world.succeed(world.offered())
    world.tick(2)
    assert rollout.deliveries.get().artifact == v3
    world.succeed(world.offered())
    world.tick(4)
    assert world.fresh(rollout).state == "succeeded"
    services.roll_back(world.user, world.fresh(rollout), now=world.now)
    world.tick()
    assert world.devices["pi-0"].desired()["version"] == 1, "what ran before, not what lay on the way"


@pytest.mark.django_db
@pytest.mark.parametrize("mode", ["keep", "revert"])
def test_a_device_that_waits_on_the_way_goes_back_as_well(mode: Any) -> None:
    """It runs version 2, and the budget lets version 3 come tomorrow only."""
    world = World(1)
    v3 = ArtifactFactory(version=VersionFactory(model=world.v1.version.model))
    rollout = world.create(
        version=v3.version,
        waves=["100%"],
        who={"must_pass_through": [2]},
        budgets={"device_bytes_per_day": offers.bytes_to_install(v3)},
    )
    world.succeed(world.offered())
    world.tick(2)
    assert rollout.deliveries.get().state == "pending"
    services.abort(world.user, world.fresh(rollout), mode, now=world.now)
    world.tick()
    assert world.devices["pi-0"].desired()["version"] == 1
