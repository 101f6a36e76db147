"""A starting rollout: its plan is fixed, and written a part at a time; killed in between, it goes on where it was."""

from datetime import timedelta
from typing import Any

import pytest

from fleet.errors import Conflict
from fleet.rollouts import candidates, deliveries, engine, experiments, preparation, recalls, services, states
from fleet.rollouts.models import Delivery, PlanPart, Rollout
from tests.factories import UserFactory
from tests.fleet.rollouts.world import RULES, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Six devices, of which a tick writes two."""
    monkeypatch.setattr(preparation, "WRITTEN_AT_ONCE", 2)
    monkeypatch.setattr(deliveries, "MOST_A_TICK", 2)
    return World()


def begun(world: World, **changes: Any) -> Rollout:
    """A rollout whose plan has been drawn up, and of which two devices' parts are written."""
    rules = {**RULES, "waves": ["100%"], **changes}
    rollout = services.create(world.user, version=world.v2.version, group=world.group, rules=rules)
    services.start(world.user, rollout)
    world.tick(2)
    rollout = world.fresh(rollout)
    assert (rollout.state, rollout.deliveries.count(), rollout.unwritten.count()) == ("starting", 2, 2)
    return rollout


def test_the_plan_is_written_part_by_part_and_then_devices_are_asked(world: World) -> None:
    rollout = begun(world)
    assert rollout.started_at is None
    assert not world.offered()
    world.tick(2)
    rollout = world.fresh(rollout)
    assert (rollout.state, rollout.started_at) == ("running", world.now)
    positions = list(rollout.deliveries.order_by("position").values_list("position", flat=True))
    assert positions == [1, 2, 3, 4, 5, 6]
    assert not PlanPart.objects.exists()
    world.tick()
    assert len(world.offered()) == 2


def test_a_tick_that_dies_in_the_middle_is_made_up_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had written is written once, whatever was under way when it died."""
    rollout = begun(world)

    def die(*_: object) -> None:
        raise RuntimeError("the machine is gone")

    with monkeypatch.context() as patched:
        patched.setattr(preparation, "_take_over", die)
        world.tick()
    assert world.fresh(rollout).deliveries.count() == 2
    world.tick(3)
    rollout = world.fresh(rollout)
    assert (rollout.state, rollout.deliveries.count()) == ("running", 6)


def test_aborted_while_starting_nobody_is_asked(world: World) -> None:
    rollout = begun(world)
    assert services.possible_verbs(rollout) == ["abort"]
    for _ in range(2):
        services.abort(world.user, world.fresh(rollout), "revert", now=world.now)
    rollout = world.fresh(rollout)
    assert (rollout.state, rollout.reason) == ("aborted", "aborted before it started")
    assert not rollout.unwritten.exists()
    assert set(rollout.deliveries.values_list("state", flat=True)) == {"cancelled"}
    world.tick(3)
    assert rollout.deliveries.count() == 2
    assert not world.offered()


def test_every_other_verb_is_refused_while_starting(world: World) -> None:
    rollout, now = begun(world), world.now
    verbs: list[tuple[str, dict[str, Any]]] = [
        ("pause", {}), ("resume", {}), ("advance", {"now": now}), ("retry", {"now": now}), ("roll_back", {"now": now}),
        ("schedule", {"start_at": None}), ("approve", {}),
    ]  # fmt: skip
    for verb, more in verbs:
        with pytest.raises(Conflict, match="is starting") as refused:
            getattr(services, verb)(world.user, world.fresh(rollout), **more)
        assert refused.value.remedy == "Possible now: abort."
    assert services.start(world.user, world.fresh(rollout)).state == "starting"


def test_its_devices_belong_to_it_before_they_are_written(world: World) -> None:
    """Neither an experiment nor another rollout takes them; that one begins when this plan is written whole."""
    rollout = begun(world)
    assert {rollout for rollout, _ in candidates.busy("main").values()} == {rollout.pk}
    assert len(candidates.busy("main")) == 6
    order = experiments.order_of(version_a=world.v1.version, version_b=world.v2.version, group=world.group)
    assert experiments.preview(world.user, order).pairs == 0
    other = Rollout.objects.create(
        version=world.v1.version, group=world.group, strategy={**RULES, "priority": 5}, state="scheduled"
    )
    world.tick()
    assert world.fresh(other).state == "scheduled"
    world.tick(8)
    assert world.fresh(rollout).state == "running"
    assert "runs this artifact already" in world.fresh(other).reason


def test_a_recall_ends_it(world: World) -> None:
    rollout = begun(world)
    boss = UserFactory(is_superuser=True)
    recalls.recall(boss, world.v2.version, reason="leaks", now=world.now)
    assert world.fresh(rollout).state == "aborted"


def test_a_plan_of_yesterday_is_not_gone_on_with(world: World) -> None:
    rollout = begun(world)
    engine.tick(world.now + states.A_DAY + timedelta(minutes=1))
    assert world.fresh(rollout).reason == "aborted: its plan is a day old and was never written whole"
    assert not Delivery.objects.exclude(state="cancelled").exists()
