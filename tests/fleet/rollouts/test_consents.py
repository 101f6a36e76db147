"""Consent that a person at the device gives: asked by a command, answered by a status."""

from typing import Any

import pytest

from fleet.inventory.models import Command
from fleet.rollouts import consents, services
from fleet.rollouts.models import Rollout
from tests.fleet.rollouts.world import World

pytestmark = pytest.mark.django_db


def asking(size: int, **changes: Any) -> tuple[World, Rollout]:
    """Devices that say in their hello that they ask, and a rollout to them."""
    world = World(size)
    for device in world.devices.values():
        device.row.hello = {**device.row.hello, "asks": True}
        device.row.save()
    return world, world.create(**{"waves": ["100%"], "delivery_timeout_s": 200_000, **changes})


def say(world: World, command: Command, **result: Any) -> None:
    """The device's answer."""
    message = {"kind": "answer", "epoch": 77, "command": str(command.pk), "ok": True, "result": result}
    world.devices[command.device.name].say("status", message, world.now)


def questions() -> dict[str, Command]:
    return {c.device.name: c for c in Command.objects.filter(name="consent").select_related("device")}


def test_a_person_at_the_device_says_now_tonight_or_no() -> None:
    """Each is asked once, with what is to be installed; nothing is sent before the answer."""
    world, rollout = asking(4)
    world.tick(3)
    asked = questions()
    assert len(asked) == 4
    assert not world.offered()
    assert asked["pi-0"].args["model"] == rollout.version.model.slug
    assert (asked["pi-0"].args["version"], asked["pi-0"].app) == (rollout.version.number, "main")
    for name, said in (("pi-0", "now"), ("pi-1", "tonight"), ("pi-2", "no"), ("pi-3", "whatever")):
        say(world, asked[name], consent=said)
    world.tick(2)
    assert [device.name for device in world.offered()] == ["pi-0"]
    found = {d.device.name: d for d in rollout.deliveries.select_related("device")}
    assert found["pi-1"].not_before is not None
    assert (found["pi-2"].state, found["pi-2"].reason) == ("skipped", "its owner said no")
    assert found["pi-3"].consent == "wanted"


def test_an_answer_of_another_device_counts_for_nothing() -> None:
    """Each device speaks for itself."""
    world, rollout = asking(2)
    message = {
        "kind": "answer",
        "epoch": 77,
        "command": str(questions()["pi-0"].pk),
        "ok": True,
        "result": {"consent": "now"},
    }
    world.devices["pi-1"].say("status", message, world.now)
    world.tick(2)
    assert set(rollout.deliveries.values_list("consent", flat=True)) == {"wanted"}


def test_a_question_is_taken_back_when_it_is_answered_here_or_the_rollout_ends() -> None:
    """A device that has heard the question is told; one that has not never hears of it."""
    world, rollout = asking(3)
    Command.objects.exclude(device__name="pi-2").update(state="sent", published_at=world.now)
    consents.answer(world.user, rollout, "pi-0", "now", world.now)
    world.tick(1)
    services.abort(world.user, world.fresh(rollout), "keep", now=world.now)
    world.tick(2)
    first = Command.objects.exclude(args={})
    assert set(first.values_list("state", flat=True)) == {"expired"}
    backs = Command.objects.filter(name="consent", args={}).values_list("device__name", flat=True)
    assert sorted(backs) == ["pi-0", "pi-1"]
    assert not rollout.deliveries.filter(question__isnull=False).exists()


def test_an_owner_who_does_not_answer_keeps_nobody_waiting() -> None:
    """The time-out of the state is the rollout's."""
    world, rollout = asking(1, step_timeouts={"consent": 600})
    world.tick(1, seconds=590)
    assert rollout.deliveries.get().state == "pending"
    world.tick(1, seconds=20)
    delivery = rollout.deliveries.get()
    assert (delivery.state, delivery.reason) == ("timed_out", "its owner did not answer within 600 s")


def test_an_owner_who_did_not_answer_is_asked_again_by_a_person_only() -> None:
    """And then has as long as before."""
    world, rollout = asking(1, step_timeouts={"consent": 600}, retry={"attempts": 5, "first_wait_s": 1})
    world.tick(5, seconds=610)
    assert rollout.deliveries.get().state == "timed_out"
    services.retry(world.user, world.fresh(rollout), now=world.now)
    world.tick(2)
    assert rollout.deliveries.get().state == "pending"
    assert Command.objects.filter(name="consent").exclude(args={}).count() == 2
    world.tick(1, seconds=610)
    assert rollout.deliveries.get().state == "timed_out"


def test_tonight_is_a_night_even_when_the_wave_opens_days_later() -> None:
    """Not noon two days after the answer."""
    world, rollout = asking(2, waves=[1, "100%"])
    first, later = (rollout.deliveries.get(wave__number=number).device.name for number in (1, 2))
    consents.answer(world.user, rollout, later, "tonight", world.now)
    world.tick(1, days=2)
    consents.answer(world.user, rollout, first, "now", world.now)
    world.tick()
    world.succeed(world.offered())
    world.tick(3)
    assert rollout.waves.get(number=2).state == "running"
    assert not world.offered()
    world.tick(2, hours=5)
    assert [device.name for device in world.offered()] == [later]
