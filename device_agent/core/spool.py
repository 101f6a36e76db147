"""Messages that must arrive: kept in two files until the broker acknowledged them.

Entries are appended to the newer file; when it is half of the limit, the older file goes (its entries counted as
dropped when they were not acknowledged) and a new one begins. An entry is `length (2 bytes) || first 4 bytes of
sha256(body) || body`, body = `leaf length (1 byte) || leaf || payload`. A torn tail is ignored and overwritten.
Entries acknowledged before a power cut may be sent again after it: receivers tell them by epoch, boot and sequence.
"""

import hashlib

from device_agent.core import ports

FILES = ("spool.0", "spool.1")
MARK_BYTES = 4  # at the start of a file; the file with the higher mark is the newer one
HEAD_BYTES = 6
MAX_ENTRY_BYTES = 8192
# A smaller file is left alone when all of it is acknowledged: rewriting it each time would wear the flash out.
WORTH_EMPTYING_BYTES = 4096


class _Segment:
    def __init__(self, name: str) -> None:
        self.name = name
        self.mark = 0
        self.begin(0)

    def begin(self, mark: int) -> None:
        self.mark = mark
        self.bytes = MARK_BYTES  # valid bytes: everything before a torn tail
        self.closed = False  # nothing may be added
        self.waiting = 0  # entries the broker has not acknowledged
        self.read_at = MARK_BYTES  # where the next entry to send begins
        self.done_at = MARK_BYTES  # where the first one not acknowledged begins


def _pack(leaf: str, payload: bytes) -> bytes:
    body = bytes([len(leaf)]) + leaf.encode() + payload
    return len(body).to_bytes(2, "big") + hashlib.sha256(body).digest()[:4] + body


class Spool:
    """First in, first out; what `put` returned from survives a power cut."""

    def __init__(self, storage: ports.Storage, limit_bytes: int) -> None:
        self.storage = storage
        self.half_bytes = limit_bytes // 2
        self.dropped = 0
        self.old, self.new = [self._scan(name) for name in FILES]
        if self.old.mark > self.new.mark:
            self.old, self.new = self.new, self.old

    def _read(self, name: str, offset: int, count: int) -> bytes:
        try:
            file = self.storage.open_read(name)
        except OSError:
            return b""
        try:
            file.seek(offset)
            return bytes(file.read(count))
        except OSError:
            return b""
        finally:
            file.close()

    def _entry(self, segment: _Segment, offset: int) -> "bytes | None":
        head = self._read(segment.name, offset, HEAD_BYTES)
        if len(head) < HEAD_BYTES:
            return None
        body = self._read(segment.name, offset + HEAD_BYTES, int.from_bytes(head[:2], "big"))
        if not body or hashlib.sha256(body).digest()[:4] != head[2:]:
            return None
        return body

    def _scan(self, name: str) -> _Segment:
        segment = _Segment(name)
        segment.begin(int.from_bytes(self._read(name, 0, MARK_BYTES), "big"))
        body = self._entry(segment, segment.bytes)
        while body is not None:
            segment.bytes += HEAD_BYTES + len(body)
            segment.waiting += 1
            body = self._entry(segment, segment.bytes)
        segment.closed = self.storage.size(name) < MARK_BYTES
        return segment

    def put(self, leaf: str, payload: bytes) -> None:
        """Keep one message for `leaf` of the device; raises OSError when the storage refuses it."""
        entry = _pack(leaf, payload)
        limit = min(MAX_ENTRY_BYTES, self.half_bytes - MARK_BYTES)
        if len(entry) > limit:
            raise OSError("a spooled message has at most %d bytes, this one %d" % (limit, len(entry)))
        if self.new.closed or self.new.bytes + len(entry) > self.half_bytes:
            self._rotate()
        # Overwrites the torn tail that a power cut or a full disk may have left.
        self.storage.write_at(self.new.name, self.new.bytes, entry)
        self.storage.sync(self.new.name)
        self.new.bytes += len(entry)
        self.new.waiting += 1

    def _rotate(self) -> None:
        self._restart(self.old, max(self.old.mark, self.new.mark) + 1)
        self.old, self.new = self.new, self.old

    def _restart(self, segment: _Segment, mark: int) -> None:
        self.storage.write_atomic(segment.name, mark.to_bytes(MARK_BYTES, "big"))
        self.dropped += segment.waiting
        segment.begin(mark)

    def next(self) -> "tuple[str, bytes, tuple[str, int, int]] | None":
        """The next message not yet handed out: (leaf, payload, ticket for `acknowledge`)."""
        for segment in (self.old, self.new):
            if segment.read_at >= segment.bytes:
                continue
            body = self._entry(segment, segment.read_at)
            if body is None:
                self._give_up(segment)
                continue
            segment.read_at += HEAD_BYTES + len(body)
            split = 1 + body[0]
            ticket = (segment.name, segment.mark, segment.read_at)
            return body[1:split].decode(), body[split:], ticket
        return None

    def _give_up(self, segment: _Segment) -> None:
        """The file went bad under us: what is left of it is lost."""
        self.dropped += segment.waiting
        segment.waiting = 0
        segment.read_at = segment.done_at = segment.bytes
        segment.closed = True

    def acknowledge(self, ticket: "tuple[str, int, int]") -> None:
        """The broker has that message; to be called in the order in which `next` gave them."""
        for segment in (self.old, self.new):
            if (segment.name, segment.mark) == ticket[:2] and segment.waiting:
                segment.done_at = ticket[2]
                segment.waiting -= 1
                if not segment.waiting and segment.bytes >= WORTH_EMPTYING_BYTES:
                    self._empty(segment)

    def _empty(self, segment: _Segment) -> None:
        try:
            self._restart(segment, segment.mark)
        except OSError:
            pass  # its messages are sent once more after a restart, which receivers recognise

    def rewind(self) -> None:
        """A new connection: everything not acknowledged is handed out again, in order."""
        for segment in (self.old, self.new):
            segment.read_at = segment.done_at

    def tidy(self) -> None:
        """Before an orderly stop: forget what is acknowledged, so that it is not sent again."""
        for segment in (self.old, self.new):
            if not segment.waiting and segment.bytes > MARK_BYTES:
                self._empty(segment)

    def waiting(self) -> int:
        """How many messages the broker has not acknowledged."""
        return self.old.waiting + self.new.waiting
