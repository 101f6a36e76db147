"""Whether a manifest may be followed: everything is checked before a byte of the artifact is fetched."""
# mypy: disable-error-code="type-arg"

import hashlib

from device_agent.core import protocol
from device_agent.core.device import Device
from device_agent.core.download import MAX_CHUNKS
from device_agent.core.slots import MODEL, SELF_TEST, SPEC_MAX_BYTES, file_name

# Left free beside an artifact: state record, spool and a file system that slows down when it is full.
RESERVE_BYTES = 16384
SELF_TEST_MAX_BYTES = 16777216


class Refusal(Exception):
    """The manifest is not followed and not asked about again; `code` is one word, the text says why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Expired(Exception):
    """The manifest is too old to be followed; the server signs again."""


def digest_of(payload: bytes) -> str:
    """What tells two manifests apart: the SHA-256 of all their bytes."""
    return protocol.hex_digest(hashlib.sha256(payload).digest())


def claim(payload: bytes) -> dict:
    """Delivery and sequence a refused manifest names, for the report about it; nothing of it is trusted."""
    try:
        message = protocol.decode(protocol.open_manifest(payload)[2])
    except protocol.ProtocolError:
        return {"delivery": "", "sequence": 0}
    delivery, sequence = message.get("delivery"), message.get("sequence")
    return {
        "delivery": delivery[:64] if isinstance(delivery, str) else "",
        "sequence": sequence if isinstance(sequence, int) else 0,
    }


def check(manifest: dict, device: Device, app: str, state: dict, formats: str, slot: str) -> None:
    """Raises Refusal, or Expired, unless this device can follow the manifest now, into `slot`."""
    _check_address(manifest, device, app)
    _check_sequence(manifest["sequence"], state)
    utc = device.clock.utc()
    if utc is not None and utc > manifest["expires_at"]:
        raise Expired(
            "the manifest %d expired %d s ago" % (manifest["sequence"], utc - manifest["expires_at"])
        )
    for field in ("transport", "self_test"):
        _check_part(manifest[field], field, device)
    _check_extent(manifest, device, app, slot)
    if manifest["artifact"]["format"] != formats:
        text = "the artifact is %s, this device runs %s"
        raise Refusal("format", text % (manifest["artifact"]["format"], formats))
    _check_rest(manifest, device)


def _check_address(manifest: dict, device: Device, app: str) -> None:
    wanted = (("device", device.name), ("app", app), ("target", device.config["target"]))
    for field, mine in wanted:
        if manifest[field] != mine:
            raise Refusal(field, "meant for %s %s, this is %s" % (field, manifest[field], mine))


def _check_sequence(sequence: int, state: dict) -> None:
    last = state["sequence"]
    if sequence < last:
        raise Refusal("sequence", "sequence %d is lower than %d, which was seen before" % (sequence, last))
    # The same manifest was recognised by its digest before; without a digest its work was lost and is done again.
    if sequence == last and state["manifest"] is not None:
        raise Refusal("sequence", "sequence %d was seen before with other content" % sequence)


def _check_part(part: dict, field: str, device: Device) -> None:
    limit = device.config.get("chunk_bytes", protocol.CHUNK_BYTES_MICROPYTHON)
    if part["chunk_bytes"] > limit:
        text = "%s comes in chunks of %d bytes, this device takes %d"
        raise Refusal("size", text % (field, part["chunk_bytes"], limit))
    if not 0 < protocol.chunk_count(part["bytes"], part["chunk_bytes"]) <= MAX_CHUNKS:
        raise Refusal("size", "%s has %d bytes, not 1 to %d chunks" % (field, part["bytes"], MAX_CHUNKS))


def _check_extent(manifest: dict, device: Device, app: str, slot: str) -> None:
    artifact, transport = manifest["artifact"], manifest["transport"]
    if transport["coding"] not in protocol.CODINGS:
        raise Refusal("format", "this agent does not know the coding %s" % transport["coding"])
    same = (transport["bytes"], transport["sha256"]) == (artifact["bytes"], artifact["sha256"])
    if transport["coding"] == "none" and not same:
        raise Refusal("manifest", "transport without coding names other bytes than the artifact")
    if artifact["bytes"] < 1 or manifest["self_test"]["bytes"] > SELF_TEST_MAX_BYTES:
        raise Refusal("size", "the artifact is empty or its self-test above %d bytes" % SELF_TEST_MAX_BYTES)
    free = device.storage.free_bytes()
    limit = device.config.get("flash_bytes")
    if limit is not None and artifact["bytes"] > limit:
        raise Refusal("size", "the artifact has %d bytes, %d fit here" % (artifact["bytes"], limit))
    if free is None:
        return
    for part in (MODEL, SELF_TEST):
        free += device.storage.size(file_name(app, slot, part))
    need = artifact["bytes"] + manifest["self_test"]["bytes"] + RESERVE_BYTES
    if need > free:
        raise Refusal("size", "%d bytes are needed, %d are free" % (need, free))


def _check_rest(manifest: dict, device: Device) -> None:
    from device_agent.core.trial import Trial

    if not 0 < len(manifest["delivery"]) <= protocol.ID_MAX_CHARS:
        raise Refusal("manifest", "delivery has no id of at most %d characters" % protocol.ID_MAX_CHARS)
    try:
        if manifest["trial"] is not None:
            Trial(manifest["trial"], 0)
    except protocol.ProtocolError as error:
        raise Refusal("trial", str(error))
    if "blob" in manifest["signature_spec"]:
        _check_spec_blob(manifest["signature_spec"]["blob"], device)
    for key in manifest.get("keys") or []:
        if not (isinstance(key, dict) and _is_hex(key.get("id"), 16) and _is_hex(key.get("key"), 64)):
            raise Refusal("keys", "keys names something that is no key")


def _check_spec_blob(part: object, device: Device) -> None:
    whole = isinstance(part, dict) and all(
        isinstance(part.get(field), int) for field in ("bytes", "chunk_bytes")
    )
    if not whole or not all(protocol.is_sha256(part.get(field)) for field in ("sha256", "index")):  # type: ignore
        raise Refusal("manifest", "signature_spec names no blob")
    if not 0 < part["bytes"] <= SPEC_MAX_BYTES or part["chunk_bytes"] < 1:  # type: ignore[index]
        raise Refusal("size", "the signature spec has not 1 to %d bytes" % SPEC_MAX_BYTES)
    _check_part(part, "signature_spec", device)  # type: ignore[arg-type]


def _is_hex(text: object, chars: int) -> bool:
    return isinstance(text, str) and len(text) == chars and all(c in "0123456789abcdef" for c in text)


def is_shadow(manifest: dict) -> bool:
    """Whether a manifest asks for a model to run beside the one that answers, not in its place."""
    return bool((manifest.get("trial") or {}).get("shadow"))


def describe(manifest: dict) -> dict:
    """What the state record keeps of an installed artifact; `hello` sends it as `installed`."""
    return {
        "artifact": manifest["artifact"]["sha256"],
        "delivery": manifest["delivery"],
        "model": manifest["model"],
        "version": manifest.get("version"),
    }
