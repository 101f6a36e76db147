"""Whole rollouts, driven by ticks and by devices played by hand."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from device_agent.core import ed25519, protocol
from fleet.accounts.roles import Role
from fleet.errors import Conflict
from fleet.inventory import services as inventory
from fleet.inventory.models import Device, DeviceApp, InstalledSpan
from fleet.registry import signing
from fleet.rollouts import intents, services
from fleet.rollouts.models import Delivery, Intent
from tests.factories import ArtifactFactory, UserFactory, VersionFactory
from tests.fleet.devices_by_hand import hand_device
from tests.fleet.rollouts.world import RULES, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    """Six devices."""
    return World()


def test_a_good_version_reaches_everybody_in_waves(world: World) -> None:
    """One, then the rest; then it is over, and the inventory knows what runs."""
    rollout = world.create()
    assert rollout.state == "running"
    first = world.offered()
    assert len(first) == 1
    world.succeed(first)
    world.tick(4)
    rest = world.offered()
    assert len(rest) == 5
    world.succeed(rest)
    world.tick(4)
    rollout = world.fresh(rollout)
    assert (rollout.state, rollout.reason) == ("succeeded", f"6 of 6 devices run {world.v2.version}")
    assert [decision.verb for decision in rollout.decisions.all()][::-1] == [
        "start",
        "start",
        "proceed",
        "proceed",
        "succeed",
    ]
    assert set(DeviceApp.objects.values_list("artifact_id", flat=True)) == {world.v2.pk}
    spans = InstalledSpan.objects.filter(device__name="pi-0").order_by("since")
    assert [span.artifact_id for span in spans] == [world.v1.pk, world.v2.pk]


def test_manifests_are_signed_and_bind_device_app_and_trial(world: World) -> None:
    """What a device checks before it fetches a byte."""
    world.create()
    device = world.offered()[0]
    payload = bytes(Intent.objects.get(device=device.row, current=True).payload)
    signature, key_id, body = protocol.open_manifest(payload)
    keys = {bytes.fromhex(name): bytes.fromhex(key) for name, key in signing.public_keys()}
    assert ed25519.verify(keys[key_id], body, signature)
    wanted = protocol.parse_manifest(body)
    assert (wanted["device"], wanted["app"], wanted["sequence"]) == (device.name, "main", 4)
    assert wanted["artifact"]["sha256"] == world.v2.sha256
    assert wanted["trial"]["accuracy_floor"] == world.v2.accuracy_floor
    assert wanted["trial"]["min_labelled"] == 20
    assert "deadline_us" not in wanted["trial"]


def test_a_bad_version_stops_at_its_first_device(world: World) -> None:
    """The device's own verdict ends the rollout; nobody else is ever asked, and it is told to stay on version 1."""
    rollout = world.create()
    canary = world.offered()[0]
    canary.status("trial", world.now)
    evidence = {"labelled": 3, "correct": 0, "n": 5, "e_value": 900.0, "enough": True}
    canary.status("rolled_back", world.now, reason="3 of 3 labelled answers were wrong", evidence=evidence)
    world.tick(3)
    rollout = world.fresh(rollout)
    assert rollout.state == "rolling_back"
    assert "went back by its own verdict" in rollout.reason
    back = canary.desired()
    assert (back["artifact"]["sha256"], back["trial"]) == (world.v1.sha256, None)
    assert back["sequence"] == 5
    canary.status("succeeded", world.now, reason="already installed")
    world.tick(2)
    rollout = world.fresh(rollout)
    assert rollout.state == "rolled_back"
    assert services.exposed(rollout) == 1
    untouched = rollout.deliveries.exclude(device=canary.row)
    assert {d.state for d in untouched} == {"cancelled"}
    assert not Intent.objects.exclude(device=canary.row).exists()


def test_devices_updated_before_go_back_when_a_later_wave_is_bad(world: World) -> None:
    """Wave 1 kept it, wave 2 finds it worse."""
    rollout = world.create(waves=[1, 3, "100%"])
    kept = world.offered()[0]
    world.succeed([kept])
    world.tick(4)
    worse = world.offered()
    assert len(worse) == 2
    for device in worse:
        device.status("rolled_back", world.now)
    world.tick(3)
    assert world.fresh(rollout).state == "rolling_back"
    assert kept.desired()["artifact"]["sha256"] == world.v1.sha256
    for device in (kept, *worse):
        device.status("succeeded", world.now)
    world.tick(2)
    assert world.fresh(rollout).state == "rolled_back"
    assert DeviceApp.objects.get(device=kept.row).artifact == world.v1


def test_a_wave_that_only_failed_to_install_is_held_for_a_person(world: World) -> None:
    """And the person may go on."""
    rollout = world.create()
    world.offered()[0].status("failed", world.now, reason="storage: disk full")
    world.tick(3)
    rollout = world.fresh(rollout)
    assert rollout.state == "held"
    assert "could not install it" in rollout.reason
    services.advance(world.user, rollout, now=world.now)
    world.tick(3)
    assert len(world.offered()) == 5


def test_deliveries_always_end(world: World) -> None:
    """A silent device times out, and its rollout does not wait for ever."""
    rollout = world.create(waves=["100%"])
    world.succeed(world.offered()[:5])
    world.tick(2)
    assert world.fresh(rollout).state == "running"
    world.tick(3, seconds=601)
    rollout = world.fresh(rollout)
    assert rollout.state == "succeeded"
    assert rollout.deliveries.get(state="timed_out").reason == "no end after 600 s in state offered"


def test_a_restored_database_does_not_lock_devices_out(world: World) -> None:
    """The device has seen sequence 40: whatever the database says, the next one is above it."""
    world.create(waves=["100%"])
    device = world.devices["pi-2"]
    device.sequence = 40
    device.session += 1
    device.hello(world.now)
    world.tick()
    assert device.desired()["sequence"] == 41
    assert Intent.objects.filter(device=device.row).count() == 2
    assert Delivery.objects.filter(device=device.row).count() == 1


def test_a_refused_sequence_asks_the_device_and_ends_nothing(world: World) -> None:
    """Lower than what it has seen: its hello will say what that was."""
    world.create(waves=["100%"])
    device = world.devices["pi-2"]
    device.status("rejected", world.now, code="sequence", reason="sequence 4 is lower than 9")
    delivery = Delivery.objects.get(device=device.row)
    assert delivery.state == "offered"
    assert device.row.commands.get().name == "hello"


def test_intents_are_signed_again_at_half_their_life(world: World) -> None:
    """The same delivery, a higher sequence, a later expiry; not for devices that have it."""
    world.create(waves=["100%"], delivery_timeout_s=20 * 24 * 3600)
    done, away = world.devices["pi-0"], world.devices["pi-1"]
    world.succeed([done])
    before = away.desired()
    world.tick(1, seconds=intents.LIFE.total_seconds() / 2)
    after = away.desired()
    assert after["delivery"] == before["delivery"]
    assert after["sequence"] == before["sequence"] + 1
    assert after["expires_at"] > before["expires_at"]
    assert Intent.objects.filter(device=done.row).count() == 1


def test_a_lost_status_heals_with_the_next_hello(world: World) -> None:
    """The end was said while the server was deaf."""
    rollout = world.create(waves=["100%"])
    device = world.devices["pi-3"]
    wanted = device.desired()
    device.outcome = {"delivery": wanted["delivery"], "state": "succeeded", "reason": "fine"}
    device.installed, device.sequence = wanted["artifact"]["sha256"], wanted["sequence"]
    device.session += 1
    device.hello(world.now)
    assert rollout.deliveries.get(device=device.row).state == "succeeded"


def test_a_hello_that_lacks_the_intent_has_it_sent_again(world: World) -> None:
    """The broker may have lost it."""
    world.create(waves=["100%"])
    Intent.objects.update(due=False)
    device = world.devices["pi-4"]
    device.session += 1
    device.hello(world.now)
    assert [intent.device.name for intent in Intent.objects.filter(due=True)] == ["pi-4"]


def test_pause_asks_nobody_else_and_resume_goes_on(world: World) -> None:
    """Deliveries at work go on meanwhile."""
    rollout = world.create()
    services.pause(world.user, rollout)
    services.pause(world.user, world.fresh(rollout))  # twice is no error
    world.succeed(world.offered())
    world.tick(5)
    assert not world.offered()
    services.resume(world.user, world.fresh(rollout))
    world.tick(4)
    assert len(world.offered()) == 5


def test_abort_keeps_what_runs_and_calls_back_what_is_at_work(world: World) -> None:
    """`keep`: nobody installs anything from now on, whoever has it keeps it."""
    rollout = world.create(waves=[1, 3, "100%"])
    kept = world.offered()[0]
    world.succeed([kept])
    world.tick(4)
    at_work = world.offered()
    services.abort(world.user, world.fresh(rollout), "keep", now=world.now)
    world.tick(2)
    assert world.fresh(rollout).state == "aborted"
    assert kept.desired()["artifact"]["sha256"] == world.v2.sha256
    assert [d.desired()["artifact"]["sha256"] for d in at_work] == [world.v1.sha256] * 2
    for device in at_work:
        device.status("succeeded", world.now)
    world.tick()
    assert not Delivery.objects.exclude(state__in=Delivery.ENDS).exists()


def test_roll_back_by_hand_after_the_end_reaches_everybody(world: World) -> None:
    """A finished rollout can be taken back; a device that is away finds it when it returns."""
    rollout = world.create(waves=["100%"])
    world.succeed(world.offered())
    world.tick(4)
    assert world.fresh(rollout).state == "succeeded"
    services.roll_back(world.user, world.fresh(rollout), now=world.now)
    world.tick(2)
    back = list(world.devices.values())
    assert {device.desired()["artifact"]["sha256"] for device in back} == {world.v1.sha256}
    for device in back[:5]:
        device.status("succeeded", world.now)
    world.tick(2, seconds=601)
    rollout = world.fresh(rollout)
    assert rollout.state == "rolled_back"
    assert "1 did not confirm yet" in rollout.reason


def test_the_first_version_ever_is_withdrawn_when_it_is_bad() -> None:
    """There is nothing to go back to: the offer disappears."""
    world = World(size=0)
    world.devices["new"] = hand_device("new", world.now, groups=[world.group])
    rollout = world.create()
    world.devices["new"].status("rolled_back", world.now)
    world.tick(3)
    assert world.fresh(rollout).state == "rolled_back"
    assert world.devices["new"].desired() == {}


def test_a_revoked_device_ends_its_delivery(world: World) -> None:
    """And gets nothing more."""
    rollout = world.create(waves=["100%"])
    inventory.retire(world.user, world.devices["pi-1"].row)
    world.tick()
    assert rollout.deliveries.get(device__name="pi-1").reason == "pi-1 was retired"


def test_a_newer_rollout_supersedes_what_an_aborted_one_left(world: World) -> None:
    """A device never has two deliveries at once."""
    rollout = world.create(waves=["100%"])
    services.abort(world.user, rollout, "keep", now=world.now)
    world.tick()
    v3 = ArtifactFactory(version=VersionFactory(model=world.v1.version.model))
    world.create(version=v3.version, waves=["100%"])
    active = Delivery.objects.exclude(state__in=Delivery.ENDS).values_list("device", flat=True)
    assert len(active) == len(set(active)) == 6
    assert world.devices["pi-0"].desired()["artifact"]["sha256"] == v3.sha256


def test_approval_and_start_time(world: World) -> None:
    """Nothing moves before both."""
    later = world.now + timedelta(hours=1)
    rollout = services.create(
        world.user,
        version=world.v2.version,
        group=world.group,
        rules={**RULES, "require_approval": True},
        start_at=later,
    )
    services.start(world.user, rollout)
    world.tick(2)
    assert world.fresh(rollout).state == "awaiting_approval"
    with pytest.raises(Conflict, match="a second person must approve it"):
        services.approve(world.user, world.fresh(rollout))
    services.approve(UserFactory(roles=[Role.OPERATOR]), world.fresh(rollout))
    world.tick(2)
    assert world.fresh(rollout).state == "scheduled"
    world.tick(1, hours=1)
    assert world.fresh(rollout).state == "running"


def test_a_canary_of_a_large_fleet_is_extended_not_the_fleet() -> None:
    """Sixty devices can show something, so the rollout waits for evidence."""
    world = World(size=60)
    rollout = world.create(waves=[10, "100%"], paced=False)
    world.succeed(world.offered())
    world.tick(3)
    assert world.fresh(rollout).waves.get(number=1).state == "running"
    assert len(world.offered()) == 4


def test_a_wave_of_a_larger_fleet_opens_in_parts() -> None:
    """A fifth of the first wave is asked; the next part goes out when these have answered."""
    world = World(size=25)
    world.create(waves=[10, "100%"])
    asked = []
    for _ in range(4):
        asked.append(len(world.offered()))
        world.succeed(world.offered())
        world.tick(3)
    assert asked == [2, 1, 1, 1]


def test_a_part_does_not_wait_for_a_device_that_is_away() -> None:
    """It is exposed to nothing; it gets the offer when it returns."""
    world = World(size=25)
    world.create(waves=[10, "100%"])
    first, second = world.offered()
    Device.objects.filter(pk=second.row.pk).update(online=False)
    world.succeed([first])
    world.tick(3)
    assert len(world.offered()) == 2


def test_a_failure_in_the_middle_of_a_tick_is_tried_again_and_not_soaked(world: World) -> None:
    """The last device of a wave reports it after the tick looked for tries to make, and before it looks at the wave."""
    rollout = world.create(waves=["100%"], retry={"attempts": 2, "first_wait_s": 5})
    late, *others = world.offered()
    world.succeed(others)
    heard: list[str] = []

    def report(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("SELECT") and 'FROM "rollouts_wave"' in sql and not heard:
            heard.append(sql)
            late.status("failed", world.now, reason="storage: disk full")
        return execute(sql, *rest)

    with connection.execute_wrapper(report):
        world.tick()
    delivery = rollout.deliveries.get(device=late.row)
    assert heard
    assert (delivery.state, delivery.tries) == ("pending", 1)
    assert rollout.waves.get().state == "running"
    world.tick(6)
    world.succeed([late])
    world.tick(4)
    assert world.fresh(rollout).reason == f"6 of 6 devices run {world.v2.version}"
