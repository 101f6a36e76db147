"""Whether a manifest was signed by a key that this device trusts; a board loads this for each manifest only."""
# mypy: disable-error-code="type-arg"

from device_agent.core import ed25519, offers, protocol


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


def bytes_of_hex(text: str) -> bytes:
    """The bytes of a hexadecimal string (not every MicroPython has `fromhex`)."""
    return bytes([int(text[i : i + 2], 16) for i in range(0, len(text), 2)])
