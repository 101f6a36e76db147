"""What travels instead of an artifact, decoded as a stream in small pieces.

A decoder never gives out more than the artifact's size, whatever it is fed, and holds a few KiB: the window of
`deflate` is 4 KiB (`DEFLATE_WINDOW_BITS`), part of the format, so that a board can decode it; so are the limits of
`segments` (its own module).
"""

import sys

from device_agent.core.decoding import PIECE_BYTES, CodingError, Plain

DEFLATE_WINDOW_BITS = 12

_ON_BOARD = sys.implementation.name == "micropython"
if not _ON_BOARD:
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


# A board has the code of one decoder in memory, and only while it fetches.


def _board_inflate(total_bytes: int) -> Plain:
    from device_agent.core.inflate import BoardInflate

    return BoardInflate(total_bytes)


def _segments(total_bytes: int) -> Plain:
    from device_agent.core.segments import Segments

    return Segments(total_bytes)


DECODERS = {
    "none": Plain,
    "deflate": _board_inflate if _ON_BOARD else ZlibInflate,
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
