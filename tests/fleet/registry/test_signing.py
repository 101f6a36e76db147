"""Keys: made once whoever comes first, readable by the owner alone, rotated without losing old ones."""

import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_agent.core import ed25519
from fleet.errors import Unavailable
from fleet.registry import signing


@pytest.fixture(autouse=True)
def keys(settings: Any, tmp_path: Path) -> Path:
    settings.KEYS_DIR = tmp_path / "keys"
    return tmp_path / "keys"


def test_devices_and_libraries_verify_what_the_server_signs() -> None:
    signature, key_id = signing.sign(b"manifest")
    [(hex_id, hex_key)] = signing.public_keys()
    assert key_id.hex() == hex_id
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(hex_key)).verify(signature, b"manifest")
    assert ed25519.verify(bytes.fromhex(hex_key), b"manifest", signature)
    assert signing.verify(b"manifest", signature, key_id)
    assert not signing.verify(b"another", signature, key_id)


def test_key_files_are_for_their_owner_only(keys: Path) -> None:
    signing.sign(b"")
    signing.broker_key()
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in keys.iterdir()} == {
        "signing-0001.pem": 0o600,
        "broker.key": 0o600,
    }


def test_threads_that_start_together_agree_on_the_keys() -> None:
    start, found = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        found.append((signing.public_keys()[0], signing.broker_key()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_the_newest_key_that_the_reader_knows_signs() -> None:
    _, old = signing.sign(b"x")
    new = signing.rotate()
    assert [key_id for key_id, _ in signing.public_keys()] == [new, old.hex()]
    assert signing.sign(b"x", known=[old.hex(), new])[1].hex() == new
    signature, used = signing.sign(b"for a device that was away", known=[old.hex()])
    assert used == old
    assert signing.verify(b"for a device that was away", signature, old)
    assert signing.sign(b"for one that has not said")[1] == old


def test_a_key_may_go_when_everybody_knows_the_next(keys: Path) -> None:
    signing.sign(b"")
    second = signing.rotate()
    (keys / "signing-0001.pem").unlink()
    third = signing.rotate()
    assert [key_id for key_id, _ in signing.public_keys()] == [third, second]


def test_a_damaged_key_is_one_clear_line(keys: Path) -> None:
    signing.sign(b"")
    (keys / "signing-0001.pem").write_text("rubbish")
    with pytest.raises(Unavailable, match="damaged"):
        signing.sign(b"")
