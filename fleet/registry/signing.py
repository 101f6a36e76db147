"""The server's keys: Ed25519 for manifests and the broker key for device secrets, in files only the server reads.

`KEYS_DIR` holds one file a key, mode 0600: `signing-0001.pem`, `signing-0002.pem`, ... (the last one is the newest)
and `broker.key`. They are made when first needed. Whoever links a file to its final name first wins, so processes
that start together agree, and nobody ever reads half a key.
"""

import hashlib
import os
import secrets
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings

from device_agent.core.protocol import KEY_ID_BYTES
from fleet.errors import Unavailable

BROKER_KEY_BYTES = 32
SIGNING = "signing-{:04d}.pem"


def sign(body: bytes, known: Collection[str] = ()) -> tuple[bytes, bytes]:
    """The Ed25519 signature of `body` (64 bytes) and the id of the key (8 bytes).

    `known` are the ids of the keys that the reader trusts: the newest of those signs. Who did not say yet was
    provisioned with every key there was, so the oldest key is the one it surely has.
    """
    keys = _signing_keys()
    key = next((each for each in reversed(keys) if _key_id(each).hex() in known), keys[-1 if known else 0])
    return key.sign(body), _key_id(key)


def verify(body: bytes, signature: bytes, key_id: bytes) -> bool:
    """Whether one of the server's own keys signed `body`."""
    for key in _signing_keys():
        if _key_id(key) == key_id:
            return _is_good(key.public_key(), signature, body)
    return False


def public_keys() -> list[tuple[str, str]]:
    """Ids and public keys in hexadecimal, newest first; older ones stay, because devices may know only those."""
    return [(_key_id(key).hex(), _public_bytes(key).hex()) for key in reversed(_signing_keys())]


def rotate() -> str:
    """Make a new signing key and return its id; it signs for each device that has learned of it.

    Manifests carry it to devices under a key they know. When all of them know it, the old file may go.
    """
    last = max((int(path.stem.rpartition("-")[2]) for path in _signing_files()), default=0)
    return _key_id(_make_signing_key(last + 1)).hex()


def broker_key() -> bytes:
    """The secret that device passwords and client ids are derived from."""
    path = _folder() / "broker.key"
    if not path.exists():
        _write_once(path, secrets.token_bytes(BROKER_KEY_BYTES).hex().encode())
    return bytes.fromhex(_read(path).decode().strip())


def _signing_keys() -> list[Ed25519PrivateKey]:
    files = _signing_files()
    if not files:
        _make_signing_key(1)
        files = _signing_files()
    return [_load(_read(path)) for path in files]


def _signing_files() -> list[Path]:
    return sorted(_folder().glob("signing-*.pem"))


def _make_signing_key(number: int) -> Ed25519PrivateKey:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = _folder() / SIGNING.format(number)
    _write_once(path, pem)
    return _load(_read(path))


@lru_cache(maxsize=16)
def _load(pem: bytes) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise Unavailable(
            "a signing key in KEYS_DIR is damaged", remedy="Restore it from a backup."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Unavailable("a signing key in KEYS_DIR is no Ed25519 key", remedy="Restore it from a backup.")
    return key


def _key_id(key: Ed25519PrivateKey) -> bytes:
    return hashlib.sha256(_public_bytes(key)).digest()[:KEY_ID_BYTES]


def _public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _is_good(key: Ed25519PublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, body)
    except InvalidSignature:
        return False
    return True


def _folder() -> Path:
    folder = Path(settings.KEYS_DIR)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(
            f"the key {path.name} in KEYS_DIR cannot be read ({error.strerror})",
            remedy="Run every part of the server as the user who owns KEYS_DIR.",
        ) from error


def _write_once(path: Path, content: bytes) -> None:
    """Write a whole file that only its owner reads, unless another process was first."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink(missing_ok=True)
