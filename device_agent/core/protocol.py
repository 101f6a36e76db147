"""The wire protocol: topics, messages and the signed manifest, defined once for devices and server.

Everything here runs unchanged on CPython and MicroPython. Messages are JSON objects that carry `v`;
receivers ignore fields they do not know. Fields of the manifest follow SUIT (RFC 9124).
"""

import json

VERSION = 1
ROOT = "fleet/v1"

MANIFEST_MAX_BYTES = 2048
REPORT_MAX_BYTES = 4096
SIGNATURE_BYTES = 64
KEY_ID_BYTES = 8
DIGEST_BYTES = 32
ID_MAX_CHARS = 64
MAX_COUNT = 9007199254740991  # what every JSON reader and every database column holds exactly

CHUNK_BYTES_MICROPYTHON = 4096
CHUNK_BYTES_LINUX = 32768
WINDOW_CHUNKS = 16

CODINGS = ("none", "deflate", "segments")
FORMATS = ("onnx", "tflite", "plan")
SLOTS = ("a", "b")
PHASES = ("trial", "live", "shadow")

# Delivery states as a device reports them; the server adds pending, timed_out, cancelled, superseded, skipped.
PROGRESS = ("offered", "downloading", "verifying", "testing", "trial")
ENDS = ("succeeded", "rejected", "failed", "rolled_back")

COMMANDS = ("selftest", "report_now", "restart", "hello")
# Asks the person at the device; it is answered when that person has said something.
QUESTION = "consent"

# Key sets of status messages, by `kind`.
STATUS_DELIVERY = "delivery"
STATUS_MISSING = "missing"
STATUS_ANSWER = "answer"

_ID_CHARS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_HEX = "0123456789abcdef"


class ProtocolError(Exception):
    """A message that breaks the protocol; the text names the field and the reason."""


# --- identifiers ---------------------------------------------------------------------------------


def is_id(text: object) -> bool:
    """Whether `text` may name a device or an app: `[A-Za-z0-9_-]{1,64}`."""
    if not isinstance(text, str) or not 0 < len(text) <= ID_MAX_CHARS:
        return False
    return all(c in _ID_CHARS for c in text)


def is_sha256(text: object) -> bool:
    """Whether `text` is a lower-case hexadecimal SHA-256."""
    return isinstance(text, str) and len(text) == 2 * DIGEST_BYTES and all(c in _HEX for c in text)


def hex_digest(digest: bytes) -> str:
    """Lower-case hexadecimal of a digest (MicroPython's hashlib has no hexdigest)."""
    return "".join("%02x" % byte for byte in digest)


# --- topics --------------------------------------------------------------------------------------


def device_topic(device: str, leaf: str) -> str:
    """`fleet/v1/d/<device>/<leaf>`; leaf is presence, hello, status, report or command."""
    return ROOT + "/d/" + device + "/" + leaf


def desired_topic(device: str, app: str) -> str:
    """Where the retained signed manifest of one app of one device stands."""
    return ROOT + "/d/" + device + "/desired/" + app


def chunk_topic(sha256: str, chunk_bytes: int, chunk: int) -> str:
    """Where one retained chunk of a blob stands."""
    return ROOT + "/blobs/" + sha256 + "/" + str(chunk_bytes) + "/" + str(chunk)


def parse_device_topic(topic: str) -> tuple[str, str, str]:
    """Split a device topic into (device, leaf, app); app is '' unless leaf is `desired`.

    Raises ProtocolError for any other topic.
    """
    parts = topic.split("/")
    known = len(parts) in (5, 6) and parts[0] + "/" + parts[1] == ROOT and parts[2] == "d" and is_id(parts[3])
    if not known:
        raise ProtocolError("not a device topic: " + topic)
    if len(parts) == 6:
        if parts[4] != "desired" or not is_id(parts[5]):
            raise ProtocolError("not a device topic: " + topic)
        return parts[3], "desired", parts[5]
    if parts[4] not in ("presence", "hello", "status", "report", "command"):
        raise ProtocolError("not a device topic: " + topic)
    return parts[3], parts[4], ""


def parse_chunk_topic(topic: str) -> tuple[str, int, int]:
    """Split a chunk topic into (sha256, chunk_bytes, chunk); raises ProtocolError for any other topic."""
    parts = topic.split("/")
    if (
        len(parts) != 6
        or parts[0] + "/" + parts[1] + "/" + parts[2] != ROOT + "/blobs"
        or not is_sha256(parts[3])
    ):
        raise ProtocolError("not a chunk topic: " + topic)
    for part in parts[4:]:
        # Not isdigit: on CPython that holds for digits which int() refuses.
        if not 0 < len(part) < 10 or not all(c in "0123456789" for c in part):
            raise ProtocolError("not a chunk topic: " + topic)
    return parts[3], int(parts[4]), int(parts[5])


def chunk_count(size_bytes: int, chunk_bytes: int) -> int:
    """How many chunks a blob of `size_bytes` has; an empty blob has none."""
    return (size_bytes + chunk_bytes - 1) // chunk_bytes


# --- JSON ----------------------------------------------------------------------------------------


def encode(message: dict) -> bytes:  # type: ignore[type-arg]
    """JSON bytes of a message, with `v` added."""
    message["v"] = VERSION
    return json.dumps(message, separators=(",", ":")).encode()


def decode(payload: bytes) -> dict:  # type: ignore[type-arg]
    """The message in `payload`; raises ProtocolError when it is no JSON object or of another version."""
    try:
        message = json.loads(bytes(payload).decode())
    except (ValueError, UnicodeError, RuntimeError, MemoryError) as error:  # the last two: nested too deeply
        raise ProtocolError("not JSON: " + str(error))
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    if message.get("v") != VERSION:
        raise ProtocolError("v is " + str(message.get("v")) + ", this side speaks " + str(VERSION))
    return message


def _need(message: dict, field: str, kind: object) -> object:  # type: ignore[type-arg]
    value = message.get(field)
    # bool is an int in Python, and `true` is no count.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):  # type: ignore[arg-type]
        raise ProtocolError(field + " is missing or of the wrong type")
    return value


def _need_count(message: dict, field: str) -> int:  # type: ignore[type-arg]
    value = _need(message, field, int)
    if not 0 <= value <= MAX_COUNT:  # type: ignore[operator]
        raise ProtocolError(field + " is not between 0 and 2**53 - 1")
    return value  # type: ignore[return-value]


# --- messages from devices -----------------------------------------------------------------------


def presence(online: bool, epoch: int, session: int) -> bytes:
    """Retained presence, and the will with `online` false."""
    return encode({"online": online, "epoch": epoch, "session": session})


def parse_presence(payload: bytes) -> dict:  # type: ignore[type-arg]
    """A checked presence: online, epoch, session."""
    message = decode(payload)
    _need(message, "online", bool)
    _need_count(message, "epoch")
    _need_count(message, "session")
    return message


def parse_hello(payload: bytes) -> dict:  # type: ignore[type-arg]
    """A checked hello.

    Fields: protocol (list), epoch, boot, session, board, runtime, agent, heap_free, flash_free, flash_writes,
    flash_written_bytes (both since the state was made), clock (bool),
    utc (seconds or null), uptime_ms, keys (ids of those it trusts), asks (bool: a person
    there is asked before an installation), apps {app: {installed {artifact, delivery, model,
    version} | null, sequence, manifest (sha256 of its bytes | null), delivery {id, state} | null, outcome {delivery,
    state, reason} | null, serving (bool: a model is loaded, so that heap_free is what is left beside it)}}.
    """
    message = decode(payload)
    for field in ("epoch", "boot", "session", "uptime_ms"):
        _need_count(message, field)
    for field in ("board", "runtime", "agent"):
        _need(message, field, str)
    apps = _need(message, "apps", dict)
    for app in apps:  # type: ignore[attr-defined]
        if not is_id(app):
            raise ProtocolError("apps names an impossible app")
        state = apps[app]  # type: ignore[index]
        if not isinstance(state, dict):
            raise ProtocolError("apps." + app + " is not an object")
        _need_count(state, "sequence")
        installed = state.get("installed")
        if installed is not None and not (
            isinstance(installed, dict) and is_sha256(installed.get("artifact"))
        ):
            raise ProtocolError("apps." + app + ".installed names no artifact")
    return message


def parse_status(payload: bytes) -> dict:  # type: ignore[type-arg]
    """A checked status, by `kind`.

    `delivery`: app, delivery, state, reason, artifact, sequence, attempt, shadow (bool: its end leaves what is
    installed), evidence {n, errors, labelled, correct, e_value, enough; of a shadow: compared, agreed, old_correct,
    old_us, new_us}; `missing`: blob, chunk_bytes, chunks; `answer`: command, ok, result. All: epoch, boot.
    """
    message = decode(payload)
    kind = message.get("kind")
    if kind == STATUS_DELIVERY:
        if not is_id(_need(message, "app", str)):
            raise ProtocolError("app is no id")
        _need(message, "delivery", str)
        if _need(message, "state", str) not in PROGRESS + ENDS:
            raise ProtocolError("state is unknown: " + str(message["state"]))
    elif kind == STATUS_MISSING:
        if not is_sha256(message.get("blob")):
            raise ProtocolError("blob is no sha256")
        _need_count(message, "chunk_bytes")
        chunks = _need(message, "chunks", list)
        if len(chunks) > 4 * WINDOW_CHUNKS or not all(isinstance(c, int) and c >= 0 for c in chunks):  # type: ignore
            raise ProtocolError("chunks is not a short list of chunk numbers")
    elif kind == STATUS_ANSWER:
        _need(message, "command", str)
        _need(message, "ok", bool)
    else:
        raise ProtocolError("kind is unknown: " + str(kind))
    return message


def parse_report(payload: bytes) -> dict:  # type: ignore[type-arg]
    """A checked report window (at most 4 KiB).

    Fields: epoch, boot, sequence, app, artifact, slot, phase, start_ms, end_ms, utc (seconds at end_ms or null), n,
    errors, latency (sparse histogram, see histogram.py), labelled, correct | sum_abs_err, sum_sq_err | scores,
    classes {name: count}, confidence, heap_free_min, dropped.
    """
    if len(payload) > REPORT_MAX_BYTES:
        raise ProtocolError("a report has at most " + str(REPORT_MAX_BYTES) + " bytes")
    message = decode(payload)
    for field in ("epoch", "boot", "sequence", "start_ms", "end_ms", "n", "errors"):
        _need_count(message, field)
    if not is_id(_need(message, "app", str)):
        raise ProtocolError("app is no id")
    if not is_sha256(message.get("artifact")):
        raise ProtocolError("artifact is no sha256")
    if message.get("phase") not in PHASES:
        raise ProtocolError("phase is unknown: " + str(message.get("phase")))
    if message["end_ms"] < message["start_ms"]:
        raise ProtocolError("end_ms lies before start_ms")
    labelled, correct = message.get("labelled", 0), message.get("correct", 0)
    if not (isinstance(labelled, int) and isinstance(correct, int) and 0 <= correct <= labelled <= MAX_COUNT):
        raise ProtocolError("correct is not between 0 and labelled")
    return message


# --- command -------------------------------------------------------------------------------------


def parse_command(payload: bytes) -> dict:  # type: ignore[type-arg]
    """A checked command: id, name, app, args, expires_at (UTC seconds).

    `consent`: args {delivery, model, version, bytes}, answered with result {consent: now | tonight | no} when a person has
    said so; without a delivery the question is taken back.
    """
    message = decode(payload)
    _need(message, "id", str)
    if _need(message, "name", str) not in COMMANDS + (QUESTION,):
        raise ProtocolError("command is unknown: " + str(message["name"]))
    return message


# --- manifest ------------------------------------------------------------------------------------


def seal_manifest(signature: bytes, key_id: bytes, body: bytes) -> bytes:
    """The manifest as sent: signature (64 bytes) || key id (8 bytes) || JSON bytes; at most 2 KiB."""
    if len(signature) != SIGNATURE_BYTES or len(key_id) != KEY_ID_BYTES:
        raise ProtocolError("a manifest needs a signature of 64 bytes and a key id of 8")
    payload = signature + key_id + body
    if len(payload) > MANIFEST_MAX_BYTES:
        raise ProtocolError("a manifest has at most " + str(MANIFEST_MAX_BYTES) + " bytes")
    return payload


def open_manifest(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a manifest into (signature, key id, JSON bytes); nothing is trusted yet."""
    head = SIGNATURE_BYTES + KEY_ID_BYTES
    if not head < len(payload) <= MANIFEST_MAX_BYTES:
        raise ProtocolError("a manifest has between 73 and " + str(MANIFEST_MAX_BYTES) + " bytes")
    return payload[:SIGNATURE_BYTES], payload[SIGNATURE_BYTES:head], payload[head:]


def _check_blob(part: object, field: str) -> None:
    if not isinstance(part, dict) or not is_sha256(part.get("sha256")) or not is_sha256(part.get("index")):
        raise ProtocolError(field + " names no blob and index")
    _need_count(part, "bytes")
    if _need_count(part, "chunk_bytes") == 0:
        raise ProtocolError(field + ".chunk_bytes is 0")


def parse_manifest(body: bytes) -> dict:  # type: ignore[type-arg]
    """A checked manifest; call it only after the signature over `body` was verified.

    Fields: sequence, issued_at, expires_at (UTC seconds), device, app, delivery, target, model, version,
    artifact {sha256, bytes, format}, transport {coding, sha256, bytes, chunk_bytes, index[, url]}, self_test {sha256,
    bytes, chunk_bytes, index}, signature_spec (object, or {blob {sha256, bytes, chunk_bytes, index}}), trial
    {min_inferences, max_seconds, max_errors, deadline_us, min_labelled, accuracy_floor, alpha, shadow} or null, keys
    [{id, key}] (hexadecimal, rotation).
    """
    message = decode(body)
    for field in ("sequence", "issued_at", "expires_at"):
        _need_count(message, field)
    for field in ("device", "app"):
        if not is_id(_need(message, field, str)):
            raise ProtocolError(field + " is no id")
    for field in ("delivery", "target", "model"):
        _need(message, field, str)
    artifact = _need(message, "artifact", dict)
    if not is_sha256(artifact.get("sha256")) or artifact.get("format") not in FORMATS:  # type: ignore[attr-defined]
        raise ProtocolError("artifact names no sha256 or an unknown format")
    _need_count(artifact, "bytes")  # type: ignore[arg-type]
    transport = _need(message, "transport", dict)
    _check_blob(transport, "transport")
    if transport.get("coding") not in CODINGS:  # type: ignore[attr-defined]
        raise ProtocolError("transport.coding is unknown")
    _check_blob(message.get("self_test"), "self_test")
    if not isinstance(message.get("signature_spec"), dict):
        raise ProtocolError("signature_spec is missing")
    if message.get("trial") is not None and not isinstance(message["trial"], dict):
        raise ProtocolError("trial is neither an object nor null")
    return message
