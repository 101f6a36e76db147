"""Shadow rollouts: compared, never installed."""

from typing import Any

import pytest
from django.test import Client

from fleet.errors import Refused
from fleet.inventory.models import DeviceApp
from fleet.rollouts import services
from fleet.rollouts.models import Rollout
from tests.fleet.devices_by_hand import HandDevice, hand_device
from tests.fleet.rollouts.world import RULES, World

pytestmark = pytest.mark.django_db

COUNTS = {"n": 50, "errors": 0, "labelled": 20, "compared": 50, "old_us": 1000, "enough": True}


def shadowed(world: World, **changes: Any) -> Rollout:
    trial = {**RULES["trial"], "shadow": True}  # type: ignore[dict-item]
    return world.create(**{"waves": ["100%"], "trial": trial, **changes})


def end(device: HandDevice, world: World, **evidence: Any) -> None:
    """The device compared both and says so."""
    device.status("trial", world.now, shadow=True)
    device.status("succeeded", world.now, shadow=True, evidence={**COUNTS, **evidence})


def test_a_shadow_is_compared_and_installed_nowhere(client: Client) -> None:
    """The manifest asks for it, the inventory keeps what runs, and afterwards that is desired again."""
    world = World(3)
    rollout = shadowed(world)
    asked = world.offered()
    assert [device.desired()["trial"]["shadow"] for device in asked] == [True] * 3
    for device in asked:
        end(device, world, agreed=45, correct=19, old_correct=18, new_us=1100)
    world.tick(4)
    rollout = world.fresh(rollout)
    assert rollout.state == "succeeded"
    assert rollout.reason.startswith(
        "nothing was installed; both ran on 150 inputs of 3 devices; they agree on 90.0%"
    )
    assert set(DeviceApp.objects.values_list("artifact_id", flat=True)) == {world.v1.pk}
    assert {device.desired()["artifact"]["sha256"] for device in asked} == {world.v1.sha256}
    assert {device.desired()["trial"] for device in asked} == {None}
    assert services.exposed(rollout) == 0
    for device in asked:
        device.status("succeeded", world.now)
    world.tick(2)
    assert not rollout.deliveries.exclude(state="succeeded").exists()
    assert rollout.created_by is not None
    client.force_login(rollout.created_by)
    found = client.get(f"/api/v1/rollouts/{rollout.pk}/shadow").json()
    assert (found["agreement"], found["labelled"]) == (0.9, 60)
    assert found["latency_change"] == pytest.approx(0.1)
    assert found["accuracy_difference"] == pytest.approx(0.05)
    page = client.get(f"/rollouts/{rollout.pk}/").content.decode()
    assert "In the shadow, nothing is installed: both ran on 150 inputs" in page


def test_a_shadow_that_its_devices_find_worse_stops_the_rollout() -> None:
    """As a trial that went back would."""
    world = World(3)
    rollout = shadowed(world, waves=[1, "100%"])
    canary = world.offered()[0]
    canary.status(
        "rolled_back", world.now, shadow=True, reason="in the shadow: 9 of 9 labelled answers were wrong"
    )
    world.tick(3)
    assert world.fresh(rollout).state == "rolling_back"
    assert canary.desired()["artifact"]["sha256"] == world.v1.sha256


def test_gates_judge_the_paired_differences() -> None:
    """Each device against itself on the same inputs."""
    world = World(2)
    tolerated = {"disagreement": 0.2}
    rollout = shadowed(world, tolerated=tolerated)
    for device in world.offered():
        end(device, world, agreed=25, correct=10, old_correct=20, new_us=1500)
    world.tick(4)
    kept = [d.evidence["field"]["differences"] for d in rollout.deliveries.filter(kind="install")]
    assert kept == [{"errors": 0.0, "latency": 0.5, "accuracy": 0.5, "disagreement": 0.5}] * 2
    gates = {gate["name"]: gate["n"] for gate in rollout.waves.get().verdict["gates"]}
    assert gates["disagreement"] == gates["accuracy"] == 2
    assert "heap" not in gates


def test_a_device_that_runs_nothing_is_left_out_with_the_reason() -> None:
    """There is nothing to compare with."""
    world = World(1)
    hand_device("new", world.now, groups=[world.group])
    rollout = shadowed(world)
    assert rollout.dropped == [{"device": "new", "reason": "runs nothing that a shadow could run beside"}]


def test_a_model_that_keeps_a_state_has_no_shadow() -> None:
    """Inputs that a shadow passes over would break its stream, and nothing that it says could be compared."""
    world = World(1)
    version = world.v2.version
    version.facts = {**version.facts, "state_bytes": 3024}
    version.save()
    with pytest.raises(Refused, match="a shadow passes over inputs when there is no time"):
        shadowed(world)
    assert world.create(waves=["100%"]).state == "running"
