"""What devices say: repeated, late and reordered messages, re-flashed devices, and what runs where."""

from datetime import UTC, datetime, timedelta

import pytest

from fleet.accounts.roles import Role
from fleet.inventory import services, sweep
from fleet.inventory.models import Command, Device, DeviceApp, InstalledSpan
from fleet.inventory.sightings import boot_time
from tests.factories import ArtifactFactory, UserFactory
from tests.fleet.devices_by_hand import HandDevice, hand_device

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def device() -> HandDevice:
    """A device that has said hello."""
    return hand_device("pi-1", NOW)


def row() -> Device:
    """The device as the database has it."""
    return Device.objects.get(name="pi-1")


def presence(device: HandDevice, online: bool, session: int, epoch: int = 77, retained: bool = False) -> None:
    """One presence message."""
    device.say("presence", {"online": online, "epoch": epoch, "session": session}, NOW, retained)


def test_the_will_of_an_older_session_changes_nothing(device: HandDevice) -> None:
    """A device that reconnected is not offline because its old connection was found dead."""
    presence(device, True, 65540)
    presence(device, False, 65539)
    assert row().online
    presence(device, False, 65540)
    assert not row().online


def test_a_re_flashed_device_is_not_dead(device: HandDevice) -> None:
    """An unknown epoch starts afresh, however low its numbers; the replaced one never counts again."""
    presence(device, True, 9_000_000)
    device.epoch, device.session = 88, 65537
    device.hello(NOW)
    assert (row().online, row().session, row().epoch) == (True, 65537, 88)
    presence(device, False, 9_000_001, epoch=77)
    assert row().online
    presence(device, False, 65537, epoch=88)
    assert not row().online


def test_a_remembered_presence_is_no_sign_of_life(device: HandDevice) -> None:
    """The broker repeats it to every new gateway."""
    Device.objects.update(last_seen_at=NOW - timedelta(hours=1))
    presence(device, True, 65537, retained=True)
    assert row().last_seen_at == NOW - timedelta(hours=1)
    assert row().presence_text(NOW) == "overdue"


def test_boot_time_comes_from_a_trusted_clock_else_from_the_arrival() -> None:
    """A device that believes in 1970 is not believed."""
    trusted = {"uptime_ms": 60_000, "clock": True, "utc": NOW.timestamp() - 100}
    assert boot_time(trusted, NOW) == NOW - timedelta(seconds=160)
    assert boot_time({**trusted, "clock": False}, NOW) == NOW - timedelta(seconds=60)
    assert boot_time({**trusted, "utc": 0}, NOW) == NOW - timedelta(seconds=60)


def test_what_runs_is_what_the_device_says(device: HandDevice) -> None:
    """Spans open and close; bytes nobody knows are kept by their hash."""
    known = ArtifactFactory(target=device.row.target)
    for minute, installed in enumerate((known.sha256, known.sha256, "f" * 64, "")):
        device.installed = installed
        device.hello(NOW + timedelta(minutes=minute))
    spans = InstalledSpan.objects.order_by("since").values_list(
        "artifact", "artifact_sha256", "since", "until"
    )
    assert list(spans) == [
        (known.pk, known.sha256, NOW, NOW + timedelta(minutes=2)),
        (None, "f" * 64, NOW + timedelta(minutes=2), NOW + timedelta(minutes=3)),
    ]
    assert DeviceApp.objects.get().artifact_sha256 == ""


def test_commands_are_sent_again_at_hello_until_answered_or_expired(device: HandDevice) -> None:
    """Once answered, never again."""
    user = UserFactory(roles=[Role.OPERATOR])
    kept, late = (
        services.send_command(user, device.row, "selftest", now=NOW, expires_in_s=seconds)
        for seconds in (900, 60)
    )
    Command.objects.update(due=False, state=Command.State.SENT)
    sweep.sweep_once(NOW + timedelta(seconds=61))
    device.hello(NOW + timedelta(seconds=62))
    assert list(Command.objects.filter(due=True)) == [kept]
    answer = {"kind": "answer", "epoch": 77, "command": str(kept.pk), "ok": False, "result": "no model"}
    device.say("status", answer, NOW)
    device.hello(NOW + timedelta(seconds=63))
    states = {command.pk: (command.state, command.due) for command in Command.objects.all()}
    assert states == {kept.pk: ("failed", False), late.pk: ("expired", False)}


def test_answers_to_commands_of_others_do_not_count(device: HandDevice) -> None:
    """A device cannot answer for another one."""
    user = UserFactory(roles=[Role.OPERATOR])
    other = hand_device("pi-2", NOW)
    command = services.send_command(user, other.row, "restart", now=NOW)
    for name in (str(command.pk), "nonsense"):
        device.say("status", {"kind": "answer", "epoch": 77, "command": name, "ok": True}, NOW)
    assert Command.objects.get().state == "pending"


def test_the_sweep_names_devices_that_fall_silent(device: HandDevice) -> None:
    """After the third heartbeat, and only for a while."""
    silent_at = NOW + timedelta(seconds=3 * device.row.heartbeat_s)
    assert sweep.sweep_once(silent_at) == 0
    assert sweep.sweep_once(silent_at + timedelta(seconds=1)) == 1
    assert sweep.sweep_once(silent_at + timedelta(seconds=60)) == 0
