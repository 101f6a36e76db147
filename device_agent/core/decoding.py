"""What every decoder of transport bytes has in common, and the plain one."""

PIECE_BYTES = 1024


class CodingError(Exception):
    """The transport bytes are not what the coding says; the text names the reason."""


class Plain:
    """Coding `none`: the artifact itself."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._given = 0

    def feed(self, data: bytes):  # type: ignore[no-untyped-def]
        """Yield the pieces these bytes decode to; iterate to the end before the next call."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            yield self._checked(bytes(view[start : start + PIECE_BYTES]))

    def finish(self):  # type: ignore[no-untyped-def]
        """Yield what was held back, then raise CodingError unless the artifact is complete; must be iterated."""
        for piece in self._rest():  # type: ignore[no-untyped-call]
            yield piece
        if self._given != self._total:
            raise CodingError("decoded %d bytes, the artifact has %d" % (self._given, self._total))

    def _rest(self):  # type: ignore[no-untyped-def]
        return iter(())

    def _checked(self, piece: bytes) -> bytes:
        self._given += len(piece)
        if self._given > self._total:
            raise CodingError("decodes to more than the %d bytes of the artifact" % self._total)
        return piece

    def _room(self) -> int:
        # One byte more than may come, so that a stream that is too long shows.
        return min(PIECE_BYTES, self._total - self._given + 1)
