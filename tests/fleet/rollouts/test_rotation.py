"""Keys change while devices sleep: everybody gets a manifest under a key it trusts, and learns of the new one."""

from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from device_agent.core import protocol
from fleet.registry import signing
from fleet.rollouts import intents
from fleet.rollouts.models import Delivery, Intent, Rollout
from tests.factories import ArtifactFactory, DeviceFactory, GroupFactory, ModelFactory, VersionFactory
from tests.fleet.devices_by_hand import HandDevice
from tests.fleet.rollouts.world import NOW, World

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def keys(settings: Any, tmp_path: Path) -> None:
    """Keys of this test alone."""
    settings.KEYS_DIR = tmp_path / "keys"


def signed_by(device: HandDevice) -> str:
    """Id of the key under which the device's manifest came."""
    payload = bytes(Intent.objects.get(device=device.row, current=True).payload)
    return protocol.open_manifest(payload)[1].hex()


def test_a_device_that_slept_through_a_rotation_is_brought_along() -> None:
    """The old key signs what names the new one; then the new one signs."""
    [(old, _)] = signing.public_keys()
    world = World(size=2)
    sleeper, awake = world.devices.values()
    call_command("rotate_signing_key")
    new = signing.public_keys()[0][0]
    sleeper.keys, awake.keys = [old], [new, old]
    for device in (sleeper, awake):
        device.hello(world.now)
    world.create(waves=["100%"])
    assert (signed_by(sleeper), signed_by(awake)) == (old, new)
    assert [key["id"] for key in sleeper.desired()["keys"]] == [new, old]
    assert awake.desired()["keys"] == []


def test_a_key_that_is_gone_is_taken_from_devices(tmp_path: Path) -> None:
    """A device that still trusts a key the server gave up is told the keys that are left."""
    [(old, _)] = signing.public_keys()
    world = World(size=1)
    [device] = world.devices.values()
    new = signing.rotate()
    (tmp_path / "keys" / "signing-0001.pem").unlink()
    device.keys = [new, old]
    device.hello(world.now)
    world.create()
    assert signed_by(device) == new
    assert [key["id"] for key in device.desired()["keys"]] == [new]


@pytest.mark.parametrize("said", [None, "abc", [1, None], {"a": 1}])
def test_nonsense_in_hello_counts_as_not_said(said: Any) -> None:
    """Then the oldest key signs, which everybody was provisioned with."""
    [(old, _)] = signing.public_keys()
    world = World(size=1)
    [device] = world.devices.values()
    signing.rotate()
    device.keys = said
    device.hello(world.now)
    world.create()
    assert signed_by(device) == old


def test_the_longest_manifest_fits(settings: Any) -> None:
    """Names as long as they may be, an artifact by HTTPS, three keys to tell."""
    settings.BLOB_MQTT_MAX_BYTES = 10
    settings.PUBLIC_URL = "https://" + "fleet.example." * 4 + "com"
    for _ in range(3):
        signing.rotate()
    world = World(size=0)
    version = VersionFactory(model=ModelFactory(slug="m" * 63), number=999_999)
    artifact = ArtifactFactory(version=version)
    device = DeviceFactory(name="d" * 64)
    rollout = Rollout.objects.create(version=version, group=GroupFactory(), app="a" * 64, strategy={})
    delivery = Delivery(rollout=rollout, device=device, artifact=artifact, changed_at=NOW)
    payload = intents.manifest(delivery, 2**50, world.now, world.now + intents.LIFE)
    assert len(payload) <= protocol.MANIFEST_MAX_BYTES
