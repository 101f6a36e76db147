"""What travels instead of an artifact, decoded as a stream in small pieces.

A decoder never gives out more than the artifact's size, whatever it is fed, and holds a few KiB: the window of
`deflate` is 4 KiB (`DEFLATE_WINDOW_BITS`), part of the format, so that a board can decode it; so are the limits of
`segments` (its own module).
"""

import io
import sys

from device_agent.core.decoding import PIECE_BYTES, CodingError, Plain

DEFLATE_WINDOW_BITS = 12

_ON_BOARD = sys.implementation.name == "micropython"
# The one place where the core meets its interpreter's own inflate.
if _ON_BOARD:
    import deflate
else:
    import zlib


class ZlibInflate(Plain):
    """Coding `deflate` on CPython."""

    def __init__(self, total_bytes: int) -> None:
        super().__init__(total_bytes)
        self._stream = zlib.decompressobj(-DEFLATE_WINDOW_BITS)

    def feed(self, data: bytes):  # type: ignore[no-untyped-def]
        """Yield the pieces these bytes decode to; iterate to the end before the next call."""
        left = bytes(data)
        more = True
        while more:
            try:
                piece = self._stream.decompress(left, self._room())
            except zlib.error as error:
                raise CodingError("not a deflate stream: %s" % error)
            if self._stream.unused_data:
                raise CodingError("bytes follow after the end of the deflate stream")
            left = self._stream.unconsumed_tail
            # A full piece may hide more output inside zlib although all the input is taken.
            more = bool(left) or len(piece) == PIECE_BYTES
            if piece:
                yield self._checked(piece)

    def _rest(self):  # type: ignore[no-untyped-def]
        if not self._stream.eof:
            raise CodingError("the deflate stream ends early")
        return iter(())


class BoardInflate(Plain):
    """Coding `deflate` on MicroPython, whose inflate pulls from a stream and cannot pause in the middle of a symbol.

    So it reads a few bytes at a time, and only while more input lies ready than those can need: at most 48 bits each,
    and two block headers of 320 bytes. The rest waits for the next call.
    """

    STEP_BYTES = 64
    RESERVE_BYTES = 1024

    def __init__(self, total_bytes: int) -> None:
        super().__init__(total_bytes)
        self._input = io.BytesIO(self.RESERVE_BYTES + PIECE_BYTES)  # type: ignore[arg-type]
        self._end = 0
        self._stream = deflate.DeflateIO(self._input, deflate.RAW, DEFLATE_WINDOW_BITS)
        self._ended = False

    def feed(self, data: bytes):  # type: ignore[no-untyped-def]
        """Yield the pieces these bytes decode to; iterate to the end before the next call."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            self._take(view[start : start + PIECE_BYTES])
            while not self._ended and self._end - self._input.tell() > self.RESERVE_BYTES:
                piece = self._read()
                if piece:
                    yield piece
            if self._ended and self._input.tell() < self._end:
                raise CodingError("bytes follow after the end of the deflate stream")

    def _take(self, data: memoryview) -> None:
        # Move what is left to the front: one small buffer, made once, so that it never moves.
        left = self._input.read(self._end - self._input.tell())
        self._input.seek(0)
        self._end = self._input.write(left) + self._input.write(data)
        self._input.seek(0)

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


def _segments(total_bytes: int) -> Plain:
    # A small board that never gets segments has better uses for the memory of the module.
    from device_agent.core.segments import Segments

    return Segments(total_bytes)


DECODERS = {
    "none": Plain,
    "deflate": BoardInflate if _ON_BOARD else ZlibInflate,
    "segments": _segments,
}


def decoder(coding: str, total_bytes: int) -> Plain:
    """A fresh decoder of transport bytes into an artifact of exactly `total_bytes`.

    For each chunk in order iterate `feed(chunk)`, at last iterate `finish()`; both yield pieces of the artifact and
    raise CodingError.
    """
    if coding not in DECODERS:
        raise CodingError("coding %s is unknown; this agent knows %s" % (coding, ", ".join(sorted(DECODERS))))
    return DECODERS[coding](total_bytes)


def encode(coding: str, data: bytes) -> bytes:
    """The transport bytes of an artifact; servers only."""
    if coding == "none":
        return data
    if coding != "deflate" or _ON_BOARD:
        raise CodingError("coding %s cannot be made here" % coding)
    packer = zlib.compressobj(9, zlib.DEFLATED, -DEFLATE_WINDOW_BITS, 9)
    return packer.compress(data) + packer.flush()
