"""Verbs beside start and stop: try again, roll back a part, clone, schedule, advance; each twice, each with a note."""

from datetime import timedelta

import pytest

from fleet.accounts.roles import Role
from fleet.errors import Conflict, Refused
from fleet.rollouts import services
from fleet.rollouts.models import Delivery, Rollout
from fleet.rollouts.parts import Part
from tests.factories import ArtifactFactory, UserFactory, VersionFactory
from tests.fleet.rollouts.world import RULES, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    """Six devices."""
    return World()


def test_who_failed_is_asked_again_under_a_new_id_and_late_words_about_the_old_try_count_for_nothing(
    world: World,
) -> None:
    rollout = world.create()
    device = world.offered()[0]
    old = device.desired()["delivery"]
    device.status("failed", world.now, reason="storage: disk full")
    world.tick(3)
    assert world.fresh(rollout).state == "held"
    for _ in range(2):
        services.retry(world.user, world.fresh(rollout), now=world.now, note="card replaced")
    world.tick()
    delivery = Delivery.objects.get(device=device.row)
    assert (delivery.state, world.fresh(rollout).state) == ("offered", "running")
    assert device.desired()["delivery"] not in (old, str(delivery.pk))
    device.status("failed", world.now, delivery=old, reason="from the spool")
    delivery.refresh_from_db()
    assert delivery.state == "offered"
    assert [line["state"] for line in delivery.history] == ["offered", "failed", "pending", "offered"]
    world.succeed([device])
    world.tick(4)
    assert len(world.offered()) == 5
    notes = list(rollout.decisions.filter(verb="retry").values_list("sentence", flat=True))
    assert notes == ["1 device asked again: card replaced"]


def test_a_finished_rollout_asks_those_who_failed_once_more(world: World) -> None:
    rollout = world.create(waves=["100%"])
    lost, *others = world.offered()
    lost.status("failed", world.now)
    world.succeed(others)
    world.tick(4)
    assert world.fresh(rollout).reason == f"5 of 6 devices run {world.v2.version}"
    assert "retry" in services.possible_verbs(world.fresh(rollout))
    services.retry(world.user, world.fresh(rollout), now=world.now)
    world.tick(2)
    world.succeed([lost])
    world.tick(4)
    assert world.fresh(rollout).reason == f"6 of 6 devices run {world.v2.version}"
    services.abort(world.user, world.create(version=_third(world), waves=[1]), "keep", now=world.now)


def test_a_draft_cannot_be_tried_again(world: World) -> None:
    draft = services.create(world.user, version=world.v2.version, group=world.group, rules=RULES)
    with pytest.raises(Conflict, match="cannot be tried again"):
        services.retry(world.user, draft, now=world.now)


@pytest.mark.parametrize(
    ("part", "went", "skipped"),
    [
        (Part(devices=("pi-0", "pi-1")), 2, 0),
        (Part(wave=1), 3, 0),
        (Part(target="raspberry-pi-4"), 3, 3),
        (Part(wave=2), 0, 3),
    ],
)
def test_a_part_goes_back_and_the_rest_goes_on(part: Part, went: int, skipped: int) -> None:
    world = World()
    rollout = world.create(waves=[3, "100%"])
    first = world.offered()
    if part.devices:
        part = Part(devices=tuple(device.name for device in first[:2]))
    world.succeed(first)
    for _ in range(2):
        services.roll_back(world.user, world.fresh(rollout), now=world.now, part=part, note="site asked")
    world.tick()
    assert world.fresh(rollout).state in ("running", "succeeded")
    back = rollout.deliveries.filter(kind="roll_back")
    assert (back.count(), rollout.deliveries.filter(state="cancelled").count()) == (went, skipped)
    for device in first:
        if back.filter(device=device.row).exists():
            assert device.desired()["artifact"]["sha256"] == world.v1.sha256
            device.status("succeeded", world.now)
    assert rollout.decisions.filter(verb="roll_back_part").count() == 1
    world.tick(3)
    world.succeed(world.offered())
    world.tick(5)
    rollout = world.fresh(rollout)
    assert (rollout.state, rollout.reason) == (
        "succeeded",
        f"{6 - went - skipped} of 6 devices run {world.v2.version}",
    )


def test_a_part_without_devices_is_refused(world: World) -> None:
    rollout = world.create()
    with pytest.raises(Refused, match="no device of rollout"):
        services.roll_back(world.user, rollout, now=world.now, part=Part(devices=("nobody",)))
    with pytest.raises(Refused, match="1 of the devices") as caught:
        services.roll_back(world.user, rollout, now=world.now, part=Part(devices=("pi-0", "nobody")))
    assert caught.value.problems == ["nobody is not among them"]
    assert not rollout.deliveries.filter(kind="roll_back").exists()


def test_one_key_makes_one_rollout_and_a_clone_takes_over_everything_but_the_past(world: World) -> None:
    order = {"version": world.v2.version, "group": world.group, "rules": RULES, "key": "k1"}
    first, again = (services.create(world.user, **order) for _ in range(2))
    assert first == again
    with pytest.raises(Conflict, match="another order"):
        services.create(world.user, **{**order, "version": _third(world)})
    clone = services.clone(world.user, first, key="k2")
    assert services.clone(world.user, first, key="k2") == clone != first
    assert (clone.state, clone.strategy, clone.group) == ("draft", first.strategy, first.group)
    assert services.clone(world.user, first, version=_third(world)).version != first.version
    assert Rollout.objects.count() == 3


def test_a_start_is_scheduled_moved_and_made_now(world: World) -> None:
    rollout = services.create(world.user, version=world.v2.version, group=world.group, rules=RULES)
    later = world.now + timedelta(hours=2)
    assert services.schedule(world.user, rollout, later).state == "scheduled"
    services.schedule(world.user, world.fresh(rollout), later + timedelta(hours=2))
    world.tick(1, hours=3)
    assert world.fresh(rollout).state == "scheduled"
    services.schedule(world.user, world.fresh(rollout), None, note="maintenance was called off")
    world.tick(2)
    assert world.fresh(rollout).state == "running"
    with pytest.raises(Conflict, match="began already"):
        services.schedule(world.user, world.fresh(rollout), later)


def test_advance_means_the_wave_that_was_seen(world: World) -> None:
    """A second press must not open the wave after the next."""
    rollout = world.create(waves=[1, 2, "100%"], soak_seconds=3600)
    for wave in (1, 2):
        world.succeed(world.offered())
        world.tick(2)
        assert rollout.waves.get(number=wave).state == "soaking"
        services.advance(world.user, world.fresh(rollout), now=world.now, wave=1)
        world.tick(2)
    assert [wave.state for wave in rollout.waves.all()] == ["passed", "soaking", "pending"]


def test_a_wave_that_is_not_the_one_that_waits_is_not_advanced(world: World) -> None:
    rollout = world.create(waves=[1, 2, "100%"], soak_seconds=3600)
    world.succeed(world.offered())
    world.tick(2)
    for wave in (3, 99):
        with pytest.raises(Conflict, match=f"wave 1 is soaking, not wave {wave}"):
            services.advance(world.user, world.fresh(rollout), now=world.now, wave=wave)


def test_a_start_that_is_pressed_again_after_the_scheduler_looked_changes_nothing(world: World) -> None:
    rollout = services.create(
        world.user, version=world.v2.version, group=world.group, rules={**RULES, "require_approval": True}
    )
    services.start(world.user, rollout)
    other = UserFactory(roles=[Role.OPERATOR])
    services.approve(other, world.fresh(rollout))
    world.tick(2)
    for _ in range(2):
        assert services.start(world.user, world.fresh(rollout)).state == "running"
        assert services.approve(other, world.fresh(rollout)).state == "running"
    assert rollout.decisions.filter(verb__in=("start", "approve"), decided_by__isnull=False).count() == 2


def test_a_time_that_is_given_twice_is_noted_once(world: World) -> None:
    rollout = services.create(world.user, version=world.v2.version, group=world.group, rules=RULES)
    for _ in range(3):
        services.schedule(world.user, world.fresh(rollout), world.now + timedelta(hours=2))
    assert rollout.decisions.count() == 1


def test_notes_are_kept_with_every_decision(world: World) -> None:
    rollout = world.create()
    services.pause(world.user, rollout, note="the office is closed")
    services.resume(world.user, world.fresh(rollout), note="open again")
    services.abort(world.user, world.fresh(rollout), "keep", now=world.now, note="wrong camera")
    said = {(d.verb, d.sentence.partition(": ")[2]) for d in rollout.decisions.all() if d.decided_by}
    assert {("pause", "the office is closed"), ("resume", "open again"), ("abort", "wrong camera")} <= said


def test_an_aborted_rollout_can_still_be_taken_back(world: World) -> None:
    rollout = world.create()
    device = world.offered()[0]
    world.succeed([device])
    services.abort(world.user, world.fresh(rollout), "keep", now=world.now)
    services.roll_back(world.user, world.fresh(rollout), now=world.now)
    world.tick()
    assert device.desired()["artifact"]["sha256"] == world.v1.sha256
    unstarted = services.create(world.user, version=_third(world), group=world.group, rules=RULES)
    services.abort(world.user, unstarted, "revert", now=world.now)
    assert "roll-back" not in services.possible_verbs(world.fresh(unstarted))
    with pytest.raises(Conflict, match="no device was asked yet"):
        services.roll_back(world.user, world.fresh(unstarted), now=world.now)


@pytest.mark.parametrize("state", ["paused", "held", "awaiting_approval"])
def test_what_a_person_left_alone_ends_after_a_month(state: str, world: World) -> None:
    rollout = world.create()
    Rollout.objects.filter(pk=rollout.pk).update(state=state, state_since=world.now)
    world.tick(1, days=29)
    assert world.fresh(rollout).state == state
    world.tick(2, days=1)
    rollout = world.fresh(rollout)
    assert (rollout.state, rollout.reason.partition(":")[0]) == ("aborted", "aborted")
    assert "for 30 days" in rollout.reason


def test_a_device_that_is_never_asked_is_given_up_after_a_month(world: World) -> None:
    """Whatever kept it from being offered, its wave does not wait for ever."""
    rollout = world.create(waves=["100%"])
    world.succeed(world.offered()[1:])
    Delivery.objects.filter(state="offered").update(state="pending", offered_at=None)
    Delivery.objects.filter(state="pending").update(changed_at=world.now, artifact=None)
    Rollout.objects.filter(pk=rollout.pk).update(state="paused", state_since=world.now + timedelta(days=9))
    world.tick(1, days=31)
    assert Delivery.objects.get(state="timed_out").reason == "no end after 30 days in state pending"


def test_a_device_that_was_away_too_long_confirms_its_way_back_late(world: World) -> None:
    rollout = world.create(waves=["100%"])
    world.succeed(world.offered())
    world.tick(3)
    services.roll_back(world.user, world.fresh(rollout), now=world.now)
    world.tick(2)
    world.tick(2, seconds=601)
    assert world.fresh(rollout).state == "rolled_back"
    device = world.devices["pi-3"]
    device.status("succeeded", world.now)
    back = rollout.deliveries.get(kind="roll_back", device=device.row)
    assert (back.state, back.reason) == ("succeeded", "it was away, and went back when it returned")


def _third(world: World) -> "object":
    return ArtifactFactory(version=VersionFactory(model=world.v1.version.model)).version
