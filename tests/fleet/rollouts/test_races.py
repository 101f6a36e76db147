"""Operators who press at once and several schedulers, on a real PostgreSQL: one wins, the work is done once."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fleet.errors import Conflict
from fleet.rollouts import deliveries, engine, experiments, observing, preparation, recalls, services
from fleet.rollouts.models import Decision, Delivery, Intent, Rollout
from fleet.rollouts.parts import Part
from tests.factories import UserFactory
from tests.fleet.rollouts.conftest import Together
from tests.fleet.rollouts.world import RULES, World

pytestmark = [pytest.mark.usefixtures("on_postgresql"), pytest.mark.xdist_group("races")]


def decided(rollout: Rollout) -> Counter[str]:
    """How often each decision was noted."""
    return Counter(Decision.objects.filter(rollout=rollout).values_list("verb", flat=True))


def test_four_schedulers_take_a_rollout_through_doing_everything_once(together: Together) -> None:
    world = World(size=8)
    rollout = services.create(
        world.user, version=world.v2.version, group=world.group, rules={**RULES, "waves": [2, "100%"]}
    )
    services.start(world.user, rollout)
    for _ in range(12):
        world.tick()
        errors = together(*[lambda: engine.tick(world.now)] * 4)
        assert not [error for error in errors if isinstance(error, Exception)]
        world.succeed(world.offered())
    assert services.rollout_by_id(rollout.pk).state == "succeeded"
    assert decided(rollout) == {"start": 2, "proceed": 2, "succeed": 1}
    assert Delivery.objects.count() == Intent.objects.count() == 8
    assert set(Intent.objects.values_list("sequence", flat=True)) == {4}


def test_four_schedulers_write_a_plan_once_while_it_is_aborted(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of two devices: each is written once; after an abort in between none is, and nobody is asked."""
    monkeypatch.setattr(preparation, "WRITTEN_AT_ONCE", 2)
    monkeypatch.setattr(deliveries, "MOST_A_TICK", 2)
    world = World(size=8)
    order: dict[str, Any] = {"version": world.v2.version, "group": world.group, "rules": RULES}
    for abort_at in (9, 3):
        rollout = services.create(world.user, **order)
        services.start(world.user, rollout)
        pk = rollout.pk
        for turn in range(5):
            world.tick()
            now = world.now
            verbs: list[Callable[[], Any]] = [partial(engine.tick, now)] * 4
            if turn == abort_at:
                verbs.append(partial(services.abort, world.user, services.rollout_by_id(pk), "keep", now=now))
            errors = together(*verbs)
            assert not [error for error in errors if isinstance(error, Exception)], errors
        rollout = services.rollout_by_id(rollout.pk)
        assert not rollout.unwritten.exists()
        if abort_at == 9:
            positions = rollout.deliveries.order_by("position").values_list("position", flat=True)
            assert list(positions) == list(range(1, 9))
            services.abort(world.user, rollout, "keep", now=world.now)
            world.tick(9)
        else:
            assert rollout.state == "aborted"
        assert not rollout.deliveries.exclude(state__in=Delivery.ENDS).filter(kind="install").exists()


def test_the_same_verb_at_once_is_done_once_and_nobody_is_refused(together: Together) -> None:
    world = World(size=4)
    order: dict[str, Any] = {"version": world.v2.version, "group": world.group, "rules": RULES, "key": "k"}
    made = together(*[lambda: services.create(world.user, **order)] * 4)
    assert len({rollout.pk for rollout in made}) == Rollout.objects.count() == 1
    pk = made[0].pk

    def press(verb: str, **more: Any) -> None:
        answers = together(
            *[lambda: getattr(services, verb)(world.user, services.rollout_by_id(pk), **more)] * 4
        )
        assert not [answer for answer in answers if isinstance(answer, Exception)], (verb, answers)

    now = world.now
    press("start")
    world.tick(2)
    press("pause")
    press("resume")
    world.offered()[0].status("failed", now)
    world.tick(3)
    press("retry", now=now)
    world.tick(1)
    world.succeed(world.offered())
    rollout = services.rollout_by_id(pk)
    Rollout.objects.filter(pk=pk).update(strategy={**rollout.strategy, "soak_seconds": 3600})
    world.tick(1)
    press("advance", now=now, wave=1)
    world.tick(2)
    press("roll_back", now=now, part=Part(wave=1))
    press("abort", now=now, mode="keep")
    press("roll_back", now=now)
    counts = decided(made[0])
    assert {verb: n for verb, n in counts.items() if verb not in ("start", "hold")} == dict.fromkeys(
        ("pause", "resume", "retry", "advance", "roll_back_part", "abort", "roll_back"), 1
    )


def fight(together: Together, world: World) -> tuple[Rollout, list[Any]]:
    """One rollout that is aborted, paused, rolled back and ticked at the same moment, and then brought to its end."""
    rollout = world.create(waves=["100%"])
    now, other = world.now, UserFactory(is_superuser=True)
    answers = together(
        lambda: services.abort(world.user, services.rollout_by_id(rollout.pk), "keep", now=now),
        lambda: services.pause(other, services.rollout_by_id(rollout.pk)),
        lambda: services.roll_back(other, services.rollout_by_id(rollout.pk), now=now),
        lambda: engine.tick(now),
    )
    for _ in range(3):
        world.tick(3)
        for device in world.offered():
            device.status("succeeded", world.now)
    return services.rollout_by_id(rollout.pk), answers


def test_opposite_verbs_at_once_leave_one_story(together: Together) -> None:
    """Whoever wins: everybody is back where they were, and a verb that lost was told so."""
    world = World(size=3)
    for _ in range(5):
        rollout, answers = fight(together, world)
        story = [(d.verb, d.sentence) for d in rollout.decisions.all()]
        assert rollout.state in ("aborted", "rolled_back"), (answers, story)
        assert all(isinstance(a, Conflict) for a in answers if isinstance(a, Exception)), answers
        assert not rollout.deliveries.exclude(state__in=Delivery.ENDS).exists()
        wanted = {device.desired()["artifact"]["sha256"] for device in world.devices.values()}
        rows = list(rollout.deliveries.values_list("device__name", "kind", "state", "artifact", "reason"))
        assert wanted == {world.v1.sha256}, (answers, story, rows)


def test_a_recall_while_devices_report_and_schedulers_tick(together: Together) -> None:
    world = World(size=4)
    boss = UserFactory(is_superuser=True)
    rollout = world.create(waves=["100%"])
    devices = world.offered()
    answers = together(
        lambda: recalls.recall(boss, world.v2.version, reason="leaks", now=world.now),
        lambda: recalls.recall(boss, world.v2.version, reason="leaks", now=world.now),
        lambda: world.succeed(devices[:2]),
        lambda: engine.tick(world.now),
    )
    assert not [answer for answer in answers if isinstance(answer, Exception)], answers
    for _ in range(3):
        world.tick(2)
        for device in world.offered():
            device.status("succeeded", world.now)
    assert services.rollout_by_id(rollout.pk).state == "rolled_back"
    assert {device.desired()["artifact"]["sha256"] for device in devices} == {world.v1.sha256}
    assert recalls.still_runs(world.v2.version) == []


def test_an_experiment_is_looked_at_and_promoted_once(together: Together) -> None:
    world = World(size=4)
    order = experiments.order_of(
        version_a=world.v1.version, version_b=world.v2.version, group=world.group, rules=RULES
    )
    made = experiments.create(world.user, order, world.now)
    world.tick(3)
    world.succeed(world.offered())
    world.tick(2)
    looked = together(*[lambda: observing.tick(world.now + observing.LOOKED_EVERY * 9)] * 4)
    assert sorted(looked) == [0, 0, 0, 1]

    def promote() -> str:
        return experiments.promote(world.user, experiments.by_id(made.pk), "b", world.now).state

    assert together(*[promote] * 4) == ["promoted"] * 4
    assert Rollout.objects.count() == 2
