"""The device's state record: one JSON object kept in two files written in turn.

Each file is `first 8 bytes of sha256(body) || body`; the valid one with the higher counter is the state. A power cut
while one is written leaves the other, which is the state just before that write.
"""
# mypy: disable-error-code="type-arg"

import hashlib
import json

from device_agent.core import ports

FILES = ("state.0", "state.1")
CHECK_BYTES = 8


def _pack(fields: dict) -> bytes:
    body = json.dumps(fields).encode()
    return hashlib.sha256(body).digest()[:CHECK_BYTES] + body


def _unpack(data: "bytes | None") -> "dict | None":
    if data is None or hashlib.sha256(data[CHECK_BYTES:]).digest()[:CHECK_BYTES] != data[:CHECK_BYTES]:
        return None
    try:
        fields = json.loads(data[CHECK_BYTES:].decode())
    except (ValueError, UnicodeError):
        return None
    return fields if isinstance(fields, dict) and isinstance(fields.get("counter"), int) else None


def new_app() -> dict:
    """The state of an app that has never had a model.

    active: slot that serves, or None. slots: what each slot holds once it passed its self-test {artifact, delivery,
    model, version, spec, boots...}. delivery: the one under way. outcome: how the last one ended.
    """
    return {"active": None, "slots": {}, "sequence": 0, "manifest": None, "delivery": None, "outcome": None}


class Record:
    """Holds the fields in RAM; `save` makes them durable or raises OSError and leaves the old state on disk."""

    def __init__(self, storage: ports.Storage, entropy) -> None:  # type: ignore[no-untyped-def]
        self.storage = storage
        found = [_unpack(self._read(name)) for name in FILES]
        self.fields = _newest(found) or {}
        if not self.fields:
            # 32 random bits: a re-flashed device starts afresh at the server, whatever its counters say.
            self.fields = {
                "counter": 0,
                "epoch": int.from_bytes(entropy(4), "big"),
                "boot": 0,
                "apps": {},
                "keys": [],
            }

        self.worn: list = self.fields.get("flash") or [0, 0]  # by earlier boots

    def wear(self) -> list:
        """[writes, bytes] that this device's storage has taken since it was made; kept at every save."""
        return [self.worn[0] + self.storage.writes, self.worn[1] + self.storage.written_bytes]

    def _read(self, name: str) -> "bytes | None":
        try:
            return self.storage.read(name)
        except OSError:
            return None  # an unreadable file is as lost as a torn one; the other one holds the state

    def app(self, name: str) -> dict:
        """The fields of one app, made when it is new."""
        apps = self.fields["apps"]
        if name not in apps:
            apps[name] = new_app()
        state: dict = apps[name]
        return state

    def save(self) -> None:
        """Write the fields to the older of the two files."""
        counter = self.fields["counter"] + 1
        fields = dict(self.fields)
        fields["counter"] = counter
        fields["flash"] = self.wear()
        self.storage.write_atomic(FILES[counter % 2], _pack(fields))
        # Only now: after a failed write the next one must go to the same file, not to the good one.
        self.fields["counter"] = counter


def _newest(found: list) -> "dict | None":
    best = None
    for fields in found:
        if fields is not None and (best is None or fields["counter"] > best["counter"]):
            best = fields
    return best
