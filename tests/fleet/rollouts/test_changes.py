"""Devices that change while a rollout is under way, and versions that are recalled."""

import pytest

from fleet.errors import Conflict, Refused
from fleet.inventory import services as inventory
from fleet.registry import services as registry
from fleet.rollouts import recalls, services
from fleet.rollouts.models import Delivery, Intent
from tests.factories import ArtifactFactory, GroupFactory, TargetFactory, VersionFactory
from tests.fleet.devices_by_hand import hand_device
from tests.fleet.rollouts.world import RULES, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    """Six devices."""
    return World()


def reason_of(name: str) -> str:
    """Why a device's installation ended."""
    return Delivery.objects.get(device__name=name, kind="install").reason


def test_a_device_that_left_the_group_is_not_asked_and_one_at_work_goes_on(world: World) -> None:
    rollout = world.create(waves=[2, "100%"])
    at_work, waiting = world.offered()[0], _waiting(world)
    for device in (at_work, waiting):
        device.row.groups.clear()
    world.succeed(world.offered())
    world.tick(5)
    assert reason_of(waiting.name) == f"{waiting.name} left group 'lab'"
    assert len(world.offered()) == 3
    world.succeed(world.offered())
    world.tick(5)
    assert world.fresh(rollout).reason == f"5 of 6 devices run {world.v2.version}"


def test_a_device_that_a_rule_does_not_match_any_more_is_not_asked(world: World) -> None:
    for device in world.devices.values():
        inventory.set_labels(world.user, device.row, {"site": "berlin"})
    world.group = GroupFactory(slug="berlin", rule="site=berlin")
    world.create(waves=[2, "100%"])
    moved = _waiting(world)
    inventory.set_labels(world.user, moved.row, {"site": "paris"})
    world.succeed(world.offered())
    world.tick(5)
    assert reason_of(moved.name) == f"{moved.name} left group 'berlin'"


def test_a_device_that_became_another_target_gets_the_artifact_for_that_or_none(world: World) -> None:
    other = TargetFactory(slug="raspberry-pi-5")
    for_other = ArtifactFactory(version=world.v2.version, target=other)
    world.create(waves=[2, "100%"])
    at_work, waiting = world.offered()[0], _waiting(world)
    lost = next(device for device in map(_of(world), "123450") if _is_pending(device) and device != waiting)
    for device, target in ((at_work, other), (waiting, other), (lost, TargetFactory(slug="jetson-nano"))):
        type(device.row).objects.filter(pk=device.row.pk).update(target=target)
    world.tick()
    assert at_work.desired()["artifact"]["sha256"] == for_other.sha256
    assert at_work.desired()["target"] == "raspberry-pi-5"
    world.succeed(world.offered())
    world.tick(5)
    assert waiting.desired()["artifact"]["sha256"] == for_other.sha256
    assert reason_of(lost.name) == "it is a jetson-nano, and no artifact of this version for jetson-nano"


def test_a_device_that_became_another_target_gets_the_best_for_that_by_way_of_what_it_must_pass(
    world: World,
) -> None:
    """Not the newest artifact but the most accurate, with the reason; and the version between comes first."""
    other = TargetFactory(slug="raspberry-pi-5")
    between = ArtifactFactory(version=world.v2.version, target=other)
    third = VersionFactory(model=world.v1.version.model)
    ArtifactFactory(version=third, target=world.v1.target)
    best = ArtifactFactory(version=third, target=other, measurements={"test_accuracy": {"value": 0.97}})
    ArtifactFactory(version=third, target=other, measurements={"test_accuracy": {"value": 0.9}})
    world.create(version=third, waves=[1, "100%"], who={"must_pass_through": [2]})
    waiting = _waiting(world)
    type(waiting.row).objects.filter(pk=waiting.row.pk).update(target=other)
    for _ in range(2):
        world.succeed(world.offered())
        world.tick(5)
    delivery = Delivery.objects.get(device__name=waiting.name, kind="install")
    assert waiting.desired()["artifact"]["sha256"] == between.sha256
    assert delivery.hops == [best.pk]
    assert delivery.why[-1]["sentence"] == f"artifact {best.pk} is the most accurate of 2: 97.0% on test rows"


def test_revoked_and_retired_devices_are_let_go(world: World) -> None:
    rollout = world.create(waves=["100%"])
    inventory.retire(world.user, world.devices["pi-0"].row)
    world.tick()
    world.succeed([device for name, device in world.devices.items() if name != "pi-0"])
    world.tick(4)
    assert world.fresh(rollout).state == "succeeded"
    assert reason_of("pi-0") == "pi-0 was retired"


def test_a_recalled_version_comes_back_from_everywhere_and_goes_nowhere(world: World) -> None:
    world.user.is_superuser = True
    finished = world.create(waves=["100%"])
    world.succeed(world.offered())
    world.tick(4)
    draft = services.clone(world.user, world.fresh(finished), version=_third(world))
    hand = hand_device("new", world.now, groups=[world.group])
    assert "new" in [s.device for w in _plan(world).waves for s in w]
    for _ in range(2):
        recalls.recall(world.user, world.v2.version, reason="it wakes up at 3", now=world.now)
    rows = recalls.still_runs(world.v2.version)
    assert [row.device for row in rows] == sorted(name for name in world.devices)
    world.tick(2)
    assert {row.outlook for row in recalls.still_runs(world.v2.version)} == {
        f"goes back to {world.v1.version} (offered)"
    }
    for device in world.devices.values():
        assert device.desired()["artifact"]["sha256"] == world.v1.sha256
        device.status("succeeded", world.now)
    world.tick(2)
    assert recalls.still_runs(world.v2.version) == []
    assert world.fresh(finished).state == "rolled_back"
    assert finished.decisions.filter(verb="recall").count() == 1
    with pytest.raises(Conflict, match="it wakes up at 3"):
        _plan(world)
    services.start(world.user, draft)
    assert not Intent.objects.filter(device=hand.row).exists()


def test_a_recall_ends_drafts_and_turns_round_what_runs(world: World) -> None:
    world.user.is_superuser = True
    draft = services.create(world.user, version=world.v2.version, group=world.group, rules=RULES)
    running = world.create(waves=[1, "100%"])
    recalls.recall(world.user, world.v2.version, reason="leaks", now=world.now)
    assert world.fresh(draft).state == "aborted"
    assert world.fresh(running).reason == f"{world.v2.version} was recalled: leaks"
    with pytest.raises(Refused, match="needs a reason"):
        recalls.recall(world.user, world.v1.version, reason=" ", now=world.now)


def test_the_way_back_does_not_lead_to_a_recalled_version(world: World) -> None:
    """Version 1, then 2, then 3; 2 is recalled: who goes back from 3 goes back to 1."""
    world.user.is_superuser = True
    for version in (world.v2.version, third := _third(world)):
        rollout = world.create(version=version, waves=["100%"])
        world.succeed(world.offered())
        world.tick(4)
    recalls.recall(world.user, world.v2.version, reason="leaks", now=world.now)
    assert recalls.still_runs(world.v2.version) == []
    services.roll_back(world.user, world.fresh(rollout), now=world.now)
    world.tick(2)
    assert rollout.version == third
    assert {d.desired()["artifact"]["sha256"] for d in world.devices.values()} == {world.v1.sha256}
    recalls.recall(world.user, world.v1.version, reason="leaks too", now=world.now)
    world.tick(2)
    assert {d.desired() == {} for d in world.devices.values()} == {True}


def test_planning_leaves_out_a_target_whose_artifact_was_recalled(world: World) -> None:
    zero = TargetFactory(slug="raspberry-pi-zero-2-w")
    hand_device("zero", world.now, groups=[world.group], target=zero)
    registry.recall(ArtifactFactory(version=world.v2.version, target=zero), reason="too slow")
    left = {each.device: each.reason for each in _plan(world).left_out}
    assert left["zero"].endswith("is recalled: too slow")


def _plan(world: World) -> services.planning.Plan:
    return services.preview(world.user, version=world.v2.version, group=world.group, rules=RULES)


def _third(world: World) -> "object":
    return ArtifactFactory(version=VersionFactory(model=world.v1.version.model)).version


def _of(world: World):  # type: ignore[no-untyped-def]
    return lambda number: world.devices[f"pi-{number}"]


def _is_pending(device) -> bool:  # type: ignore[no-untyped-def]
    return Delivery.objects.filter(device=device.row, state="pending").exists()


def _waiting(world: World):  # type: ignore[no-untyped-def]
    return next(device for device in world.devices.values() if _is_pending(device))
