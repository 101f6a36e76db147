"""Reads manifests: those that came, when a trusted key signed them, and the one that is followed after a restart."""
# mypy: disable-error-code="type-arg"

from device_agent.core import ed25519, offers, protocol
from device_agent.core.slots import manifest_name


def read_trusted(payload: bytes, keys: list[dict]) -> dict:
    """The manifest, when one of the keys signed it; raises Refusal."""
    try:
        signature, key_id, body = protocol.open_manifest(payload)
    except protocol.ProtocolError as error:
        raise offers.Refusal("manifest", str(error))
    name = protocol.hex_digest(key_id)
    for key in keys:
        if key["id"] == name:
            if not ed25519.verify(bytes_of_hex(key["key"]), body, signature):
                raise offers.Refusal("signature", "the signature by key %s is wrong" % name)
            break
    else:
        raise offers.Refusal("signature", "signed by key %s, which this device does not know" % name)
    try:
        return protocol.parse_manifest(body)
    except protocol.ProtocolError as error:
        raise offers.Refusal("manifest", str(error))


def stored(storage, app: str, digest: str) -> "dict | None":  # type: ignore[no-untyped-def]
    """The manifest that the app follows, by the digest of its bytes; None when it is not there any more."""
    try:
        data = storage.read(manifest_name(app))
    except OSError:
        return None
    if data is None or offers.digest_of(data) != digest:
        return None
    return protocol.parse_manifest(protocol.open_manifest(data)[2])


def bytes_of_hex(text: str) -> bytes:
    """The bytes of a hexadecimal string (not every MicroPython has `fromhex`)."""
    return bytes([int(text[i : i + 2], 16) for i in range(0, len(text), 2)])
