"""Fetches one blob into a file: first its index, then what is missing of it, each chunk checked before it is written.

A file of coding `none` is resumed after a power cut from the chunks on disk that still match the index. Decoded
files begin again: the decoder's state is gone, and what is on disk cannot be checked chunk by chunk.
"""
# mypy: disable-error-code="type-arg"

import hashlib

from device_agent.core import ports, protocol
from device_agent.core.backoff import Jitter
from device_agent.core.chunks import MAX_TRIES, QUIET_MS, ChunkStream, DownloadFailed, Missing
from device_agent.core.decoding import CodingError, Plain

TYPE_CHECKING = False  # MicroPython has no `typing`; boards do not fetch by URL
if TYPE_CHECKING:
    from device_agent.core.ranges import RangeReader

READ_BYTES = 512  # one small buffer, used again, finds room in a heap that is nearly full
MAX_CHUNKS = 65536


class Hashing:
    """SHA-256 of a file, a piece a step, so that predictions are not kept waiting by a large one."""

    PIECES = 64

    def __init__(self, storage: ports.Storage, name: str) -> None:
        self.file = storage.open_read(name)
        self.hash = hashlib.sha256()
        self.piece = memoryview(bytearray(READ_BYTES))

    def step(self) -> "str | None":
        """The digest in hexadecimal once the end is reached, None before."""
        if not self.take(self.PIECES * READ_BYTES):
            return None
        self.file.close()
        return protocol.hex_digest(self.hash.digest())

    def take(self, size: int) -> bool:
        """Read that many bytes more; whether the end of the file came before."""
        while size > 0:
            count = self.file.readinto(self.piece[: min(size, READ_BYTES)])
            if not count:
                return True
            self.hash.update(self.piece[:count])
            size -= count
        return False

    def close(self) -> None:
        """Give up."""
        self.file.close()


class Download:
    """One blob on its way into the file `name`; `part` is the manifest's description of it.

    `decoder` makes the file of the blob for codings other than `none`.
    """

    def __init__(
        self,
        part: dict,
        decoder: "Plain | None",
        name: str,
        storage: ports.Storage,
        transport: ports.Transport,
        jitter: Jitter,
        told: Missing,
    ) -> None:
        self.part = part
        self.decoder = decoder
        self.name = name
        self.index_name = name + ".index"
        self.storage = storage
        self.transport = transport
        self.jitter = jitter
        count = protocol.chunk_count(part["bytes"], part["chunk_bytes"])
        chunk_bytes = part["chunk_bytes"]
        self.index = ChunkStream(
            transport, jitter, told, part["index"], count * protocol.DIGEST_BYTES, chunk_bytes
        )
        self.body = ChunkStream(transport, jitter, told, part["sha256"], part["bytes"], chunk_bytes)
        self.stream: "ChunkStream | None" = None  # the one that is asking now
        self.index_tries = 0
        self.ranges: "RangeReader | None" = None
        self.act = self._step_open_index

    # --- what the agent calls --------------------------------------------------------------------

    def step(self, now_ms: int, online: bool) -> "int | None":
        """Do one thing; returns milliseconds to wait, or None when the file is complete and on disk.

        Raises DownloadFailed, or OSError of the storage; both end this attempt.
        """
        return self.act(now_ms, online)

    def receive(self, sha256: str, chunk_bytes: int, chunk: int, payload: bytes, now_ms: int) -> None:
        """A chunk came; those of other blobs, and those not asked for, are ignored."""
        stream = self.stream
        if stream is None or sha256 != stream.sha256 or chunk_bytes != stream.chunk_bytes:
            return
        if not stream.take(chunk, payload, now_ms):
            return
        if stream is self.index:
            self._take_index(payload, now_ms)
        else:
            self._take_body(payload, now_ms)

    def reconnected(self) -> None:
        """The connection is new: ask again."""
        if self.stream is not None:
            self.stream.forget_window()

    def progress(self) -> "tuple[int, int]":
        """(chunks done, chunks in all) of the blob itself."""
        return self.body.next, self.body.total

    def close(self) -> None:
        """Give up; what is on disk stays for the next attempt."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    # --- the index -------------------------------------------------------------------------------

    def _step_open_index(self, now_ms: int, online: bool) -> "int | None":
        if self._index_is_good():
            self.act = self._step_verify
        else:
            self._restart_index()
        return 0

    def _index_is_good(self) -> bool:
        if self.storage.size(self.index_name) != self.index.size_bytes:
            return False
        hashing = Hashing(self.storage, self.index_name)
        digest = hashing.step()
        while digest is None:
            digest = hashing.step()
        return digest == self.index.sha256

    def _restart_index(self) -> None:
        self.storage.remove(self.index_name)
        self.index.start(0)
        self.stream = self.index
        self.act = self._step_stream

    def _take_index(self, payload: bytes, now_ms: int) -> None:
        if len(payload) != self.index.expected_bytes():
            self.index.refuse(now_ms)
            return
        self.storage.append(self.index_name, (payload,))
        self.index.confirm(now_ms)
        if not self.index.complete():
            return
        if self._index_is_good():
            self.stream = None
            self.act = self._step_verify
            return
        self.index_tries += 1
        if self.index_tries >= MAX_TRIES:
            raise DownloadFailed("the index of blob %s is wrong" % self.body.sha256[:12])
        # Its chunks have no index of their own: which one is bad is unknown, so all are published and asked again.
        chunks = list(range(min(self.index.total, protocol.WINDOW_CHUNKS)))
        self.index.told.missing(self.index.sha256, self.index.chunk_bytes, chunks)
        self._restart_index()

    def _digest_of(self, chunk: int) -> bytes:
        file = self.storage.open_read(self.index_name)
        try:
            file.seek(chunk * protocol.DIGEST_BYTES)
            return bytes(file.read(protocol.DIGEST_BYTES))
        finally:
            file.close()

    # --- what is on disk already -----------------------------------------------------------------

    def _step_verify(self, now_ms: int, online: bool) -> "int | None":
        self.storage.sync(self.index_name)
        size = self.storage.size(self.name)
        if self.decoder is not None or size > self.body.size_bytes:
            self.storage.remove(self.name)
        self.body.start(0)
        self.act = self._step_resume
        return 0

    def _step_resume(self, now_ms: int, online: bool) -> "int | None":
        at = self.body.next * self.body.chunk_bytes
        expected = self.body.expected_bytes()
        if not self.body.complete() and self.storage.size(self.name) >= at + expected:
            hashing = Hashing(self.storage, self.name)
            hashing.file.seek(at)
            hashing.take(expected)
            hashing.close()
            if hashing.hash.digest() == self._digest_of(self.body.next):
                self.body.start(self.body.next + 1)
                return 0
        self._begin_body()
        return 0

    def _begin_body(self) -> None:
        if self.body.complete():
            self.act = self._step_finish
        elif self.part.get("url"):
            self.act = self._step_range
        else:
            self.stream = self.body
            self.act = self._step_stream

    # --- chunks ----------------------------------------------------------------------------------

    def _step_stream(self, now_ms: int, online: bool) -> "int | None":
        if not online or self.stream is None:
            return QUIET_MS
        return self.stream.step(now_ms)

    def _take_body(self, payload: bytes, now_ms: int) -> None:
        if not self._write_checked(payload):
            self.body.refuse(now_ms)
            return
        self.body.confirm(now_ms)
        if self.body.complete():
            self.stream = None
            self.act = self._step_finish

    def _write_checked(self, payload: bytes) -> bool:
        if len(payload) != self.body.expected_bytes():
            return False
        if hashlib.sha256(payload).digest() != self._digest_of(self.body.next):
            return False
        if self.decoder is None:
            # Overwrites the torn end that a power cut may have left behind.
            self.storage.write_at(self.name, self.body.next * self.body.chunk_bytes, payload)
        else:
            self._append_decoded(self.decoder.feed(payload))
        return True

    def _append_decoded(self, pieces) -> None:  # type: ignore[no-untyped-def]
        try:
            self.storage.append(self.name, pieces)
        except CodingError as error:
            raise DownloadFailed("the %s coding is broken: %s" % (self.part["coding"], error))

    def _step_range(self, now_ms: int, online: bool) -> "int | None":
        if self.ranges is None:
            self.ranges = self._new_ranges()
        data = self.ranges.read(self.body.next, now_ms)
        if data is None:
            return max(self.ranges.retry_ms - now_ms, 1)
        if not self._write_checked(data):
            self.ranges.failed("chunk %d of the artifact is wrong" % self.body.next, now_ms)
            return 0
        self.ranges.accepted()
        self.body.start(self.body.next + 1)
        if self.body.complete():
            self.act = self._step_finish
        return 0

    def _new_ranges(self) -> "RangeReader":
        from device_agent.core.ranges import RangeReader

        part = self.part
        return RangeReader(self.transport, self.jitter, part["url"], part["bytes"], part["chunk_bytes"])

    def _step_finish(self, now_ms: int, online: bool) -> "int | None":
        if self.decoder is not None:
            self._append_decoded(self.decoder.finish())  # type: ignore[no-untyped-call]
            self.decoder = None
        self.storage.sync(self.name)
        self.storage.remove(self.index_name)
        return None
