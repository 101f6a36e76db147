"""Coding `deflate` on MicroPython, over the interpreter's own inflate."""

import io

import deflate

from device_agent.core.coding import DEFLATE_WINDOW_BITS
from device_agent.core.decoding import CodingError, Plain


class BoardInflate(Plain):
    """Coding `deflate` on MicroPython, whose inflate pulls from a stream and cannot pause in the middle of a symbol.

    So it reads a few bytes at a time, and only while more input lies ready than those can need: at most 48 bits each,
    and two block headers of 320 bytes. The rest waits for the next call.
    """

    STEP_BYTES = 64
    RESERVE_BYTES = 1024
    TAKEN_BYTES = 256
    # A block of one stored byte that is not the last (RFC 1951, 3.2.4): what follows it begins at a whole byte.
    FIRST = b"\0\1\0\xfe\xff\0"

    def __init__(self, total_bytes: int) -> None:
        super().__init__(total_bytes)
        # Made once, so that nothing large is asked of the heap while it fills.
        self._input = io.BytesIO(self.RESERVE_BYTES + self.TAKEN_BYTES)  # type: ignore[arg-type]
        self._moved = memoryview(bytearray(self.STEP_BYTES))
        self._end = 0
        self._stream = deflate.DeflateIO(self._input, deflate.RAW, DEFLATE_WINDOW_BITS)
        # The interpreter makes tables and window, 5.4 KB, at the first read; that is now, while there are holes for them.
        self._take(memoryview(self.FIRST))
        self._stream.read(1)
        self._ended = False

    def feed(self, data: bytes):  # type: ignore[no-untyped-def]
        """Yield the pieces these bytes decode to; iterate to the end before the next call."""
        view = memoryview(data)
        for start in range(0, len(view), self.TAKEN_BYTES):
            self._take(view[start : start + self.TAKEN_BYTES])
            while not self._ended and self._end - self._input.tell() > self.RESERVE_BYTES:
                piece = self._read()
                if piece:
                    yield piece
            if self._ended and self._input.tell() < self._end:
                raise CodingError("bytes follow after the end of the deflate stream")

    def _take(self, data: memoryview) -> None:
        # Move what is left to the front, a little at a time.
        stream, at, left = self._input, self._input.tell(), self._end - self._input.tell()
        for start in range(0, left, self.STEP_BYTES):
            part = self._moved[: min(self.STEP_BYTES, left - start)]
            stream.seek(at + start)
            stream.readinto(part)
            stream.seek(start)
            stream.write(part)
        stream.seek(left)
        self._end = left + stream.write(data)
        stream.seek(0)

    def _rest(self):  # type: ignore[no-untyped-def]
        while not self._ended:
            piece = self._read()
            if piece:
                yield piece
        if self._input.tell() < self._end:
            raise CodingError("bytes follow after the end of the deflate stream")

    def _read(self) -> bytes:
        try:
            piece = self._stream.read(min(self.STEP_BYTES, self._room()))
        except (EOFError, OSError):
            piece = None
        # Behind the end lie older bytes of the buffer, which inflate takes for input when it runs out.
        if self._input.tell() > self._end or (piece is None and self._input.tell() == self._end):
            raise CodingError("the deflate stream ends early")
        if piece is None:
            raise CodingError("not a deflate stream")
        self._ended = not piece
        return self._checked(piece)
