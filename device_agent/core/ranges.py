"""Chunks of a large artifact by HTTPS range requests; they are checked against the same index as all others."""

from device_agent.core import ports
from device_agent.core.backoff import BackOff, Jitter
from device_agent.core.chunks import MAX_TRIES, QUIET_LIMIT_MS, QUIET_MS, DownloadFailed

# A request costs a round trip, so it brings several chunks; only hosts with memory for it fetch by URL.
CHUNKS_A_REQUEST = 8


class RangeReader:
    """Reads `url` in pieces of `chunk_bytes`, in order."""

    def __init__(
        self, transport: ports.Transport, jitter: Jitter, url: str, size_bytes: int, chunk_bytes: int
    ) -> None:
        self.transport = transport
        self.url = url
        self.size_bytes = size_bytes
        self.chunk_bytes = chunk_bytes
        self.retry = BackOff(jitter, QUIET_MS, QUIET_LIMIT_MS)
        self.retry_ms = 0
        self.tries = 0
        self.held: list[bytes] = []

    def read(self, chunk: int, now_ms: int) -> "bytes | None":
        """The bytes of `chunk`, or None until `retry_ms`; raises DownloadFailed after MAX_TRIES failures in a row."""
        if not self.held:
            if now_ms < self.retry_ms:
                return None
            self._fetch(chunk * self.chunk_bytes, now_ms)
        return self.held.pop(0) if self.held else None

    def _fetch(self, start: int, now_ms: int) -> None:
        end = min(start + CHUNKS_A_REQUEST * self.chunk_bytes, self.size_bytes)
        try:
            data = self.transport.fetch_range(self.url, start, end)
        except OSError as error:
            self.failed("cannot fetch the artifact: %s" % error, now_ms)
            return
        size = self.chunk_bytes
        self.held = [data[at : at + size] for at in range(0, max(len(data), 1), size)]

    def accepted(self) -> None:
        """The chunk read last was good."""
        self.tries = 0
        self.retry.reset()

    def failed(self, reason: str, now_ms: int) -> None:
        """No chunk came, or a bad one: it is fetched again later; raises DownloadFailed when that did not help."""
        self.held = []
        self.tries += 1
        if self.tries >= MAX_TRIES:
            raise DownloadFailed(reason)
        self.retry_ms = now_ms + self.retry.wait_ms()
