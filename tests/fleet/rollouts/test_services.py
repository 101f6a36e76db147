"""What the verbs refuse, in which words, and what they offer instead."""

from typing import Any

import pytest

from fleet.errors import Conflict, FleetError, Refused
from fleet.inventory.models import DeviceGroup
from fleet.registry.models import ModelVersion
from fleet.registry.services import recall
from fleet.rollouts import services
from tests.factories import ArtifactFactory, GroupFactory, TargetFactory
from tests.fleet.devices_by_hand import hand_device
from tests.fleet.rollouts.world import NOW, RULES, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    """Six devices."""
    return World()


@pytest.mark.parametrize(
    "strategy",
    [
        {"waves": []},
        {"waves": ["101%"]},
        {"waves": [0]},
        {"waves": [10**300]},
        {"p1": 0.01},
        {"no": 1},
        {"trial": {"deadline_us": 10**3000}},  # no manifest could carry it
        {"alpha": 1e-300},
    ],
)
def test_strategies_that_make_no_sense_are_refused(world: World, strategy: dict[str, Any]) -> None:
    """With the field in the sentence."""
    with pytest.raises(Refused, match=r"waves|p1|no|deadline|alpha"):
        services.preview(world.user, version=world.v2.version, group=world.group, rules=strategy)


def test_refusals_name_the_reason(world: World) -> None:
    """Empty group, no artifact, all taken, all run it already."""

    def refused(group: DeviceGroup, version: ModelVersion) -> str:
        with pytest.raises(FleetError) as caught:
            services.create(world.user, version=version, group=group, rules=RULES)
        return caught.value.message

    empty = GroupFactory(slug="empty")
    assert refused(empty, world.v2.version) == "group 'empty' has no devices"
    others = GroupFactory(slug="others")
    hand_device("zero", NOW, groups=[others], target=TargetFactory(slug="raspberry-pi-zero-2-w"))
    assert "no artifact of this version for raspberry-pi-zero-2-w" in refused(others, world.v2.version)
    tiny = GroupFactory(slug="tiny")
    hand_device("mcu", NOW, groups=[tiny], target=TargetFactory(slug="stm32f746"))
    assert "export only" in refused(tiny, world.v2.version)
    hand_device("away", NOW, groups=[world.group], state="retired")
    assert "runs this artifact already" in refused(world.group, world.v1.version), "what most of them say"
    rollout = world.create()
    assert f"rollout {rollout.pk} is at work on it" in refused(world.group, world.v2.version)


def test_a_recalled_artifact_is_taken_by_nobody_and_its_reason_said(world: World) -> None:
    """Not by a rollout that was drafted before the recall either; an older artifact that still stands serves."""
    draft = services.create(world.user, version=world.v2.version, group=world.group, rules=RULES)
    recall(world.v2, reason="built from the wrong data")
    services.start(world.user, draft)
    world.tick()
    ended = world.fresh(draft)
    assert ended.state == "aborted"
    assert f"artifact {world.v2.pk} is recalled: built from the wrong data" in ended.reason
    with pytest.raises(Refused, match="recalled: built from the wrong data"):
        services.preview(world.user, version=world.v2.version, group=world.group, rules=RULES)
    other = ArtifactFactory(version=world.v2.version)
    plan = services.preview(world.user, version=world.v2.version, group=world.group, rules=RULES)
    assert {share.artifact for wave in plan.waves for share in wave} == {other.pk}


def test_verbs_out_of_place_say_what_is_possible(world: World) -> None:
    """A conflict with a way out."""
    rollout = world.create()
    with pytest.raises(Conflict) as caught:
        services.approve(world.user, rollout)
    assert "is running and cannot be approved" in caught.value.message
    assert "pause, abort, roll-back" in caught.value.remedy
