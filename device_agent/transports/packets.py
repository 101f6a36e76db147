"""MQTT 3.1.1 packets on a stream that never blocks: one at a time, in buffers made once."""

READ_ONLY = 1  # select.POLLIN
WRITE_ONLY = 4  # select.POLLOUT
# The part of a packet that is kept when it is longer than the buffer: topic and packet id, so that it can be answered.
_KEPT_BYTES = 512


class Closed(OSError):
    """The other side ended the connection, or speaks something else; the text says which."""


class Reader:
    """Collects the next packet: `kind` is its first byte, `length` bytes of it stand in `view`."""

    def __init__(self, size: int, would_block: tuple) -> None:  # type: ignore[type-arg]
        self.size = max(size, 2 * _KEPT_BYTES)
        self.view = memoryview(bytearray(self.size))
        self.would_block = would_block
        self._head = bytearray(1)
        self.begin()

    def begin(self) -> None:
        """Forget the packet that was collected."""
        self.kind = 0
        self.length = 0
        self.filled = 0
        self._shift = 0
        self._sized = False

    def complete(self, stream) -> bool:  # type: ignore[no-untyped-def]
        """Read what is there; whether the packet is whole. Raises Closed, or OSError of the stream."""
        while not self._sized:
            if not self._read(stream, self._head):
                return False
            self._take_head(self._head[0])
        while self.filled < self.length:
            start = self.filled if self.filled < self.size else _KEPT_BYTES
            end = min(self.size, start + self.length - self.filled)
            count = self._read(stream, self.view[start:end])
            if not count:
                return False
            self.filled += count
        return True

    def fits(self) -> bool:
        """Whether all of the packet is in the buffer."""
        return self.length <= self.size

    def _take_head(self, byte: int) -> None:
        if not self.kind:
            # 0 and 15 are no packets of MQTT 3.1.1.
            if not 0x10 <= byte < 0xF0:
                raise Closed("the other side speaks no MQTT")
            self.kind = byte
            return
        self.length |= (byte & 127) << self._shift
        self._shift += 7
        self._sized = byte < 128
        if not self._sized and self._shift > 21:
            raise Closed("the other side speaks no MQTT")

    def _read(self, stream, target) -> int:  # type: ignore[no-untyped-def]
        try:
            count = stream.readinto(target)
        except self.would_block:
            return 0
        if count == 0:
            raise Closed("the broker closed the connection")
        return count or 0


class Writer:
    """Puts one packet on the stream: `begin`, then `put` and `text`, then `flush`; `ready` waits for room on it."""

    def __init__(self, size: int, would_block: tuple, ready) -> None:  # type: ignore[type-arg,no-untyped-def]
        self.size = size
        self.view = memoryview(bytearray(size))
        self.would_block = would_block
        self.ready = ready
        self._used = 0
        self._small = bytearray(5)
        self._stream = None

    def begin(self, stream, kind: int, length: int) -> None:  # type: ignore[no-untyped-def]
        """The fixed header: first byte and remaining length."""
        self._stream = stream
        self._used = 0
        small = self._small
        small[0] = kind
        at = 1
        while True:
            small[at] = length & 127 | (128 if length > 127 else 0)
            at += 1
            length >>= 7
            if not length:
                break
        self.put(memoryview(small)[:at])

    def number(self, value: int) -> None:
        """Two bytes."""
        self._small[0] = value >> 8
        self._small[1] = value & 255
        self.put(memoryview(self._small)[:2])

    def text(self, data: bytes) -> None:
        """Two bytes of length and the bytes."""
        self.number(len(data))
        self.put(data)

    def put(self, data) -> None:  # type: ignore[no-untyped-def]
        """Bytes as they are."""
        data = memoryview(data)
        at = 0
        while at < len(data):
            if self._used == self.size:
                self.flush()
            count = min(self.size - self._used, len(data) - at)
            self.view[self._used : self._used + count] = data[at : at + count]
            self._used += count
            at += count

    def flush(self) -> None:
        """Send what was put; raises OSError when the other side takes nothing for too long."""
        at = 0
        while at < self._used:
            count = self._write(self.view[at : self._used])
            if count:
                at += count
            else:
                self.ready()
        self._used = 0

    def _write(self, data) -> int:  # type: ignore[no-untyped-def]
        try:
            return self._stream.write(data) or 0  # type: ignore[attr-defined]
        except self.would_block:
            return 0
