"""The chunks of one blob in ascending order, asked for in windows.

A window is one SUBSCRIBE with exact chunk topics (brokers answer those in order, wildcards in any order). Only the next
chunk is taken; whatever else arrives is dropped and asked for again, so one chunk at a time is in memory.
"""

from device_agent.core import ports, protocol
from device_agent.core.backoff import BackOff, Jitter

QUIET_MS = 5000
QUIET_LIMIT_MS = 300000
# A later chunk came first: the next one is late or lost. Asked again soon, before anyone is told it is missing.
GAP_MS = 300
MAX_TRIES = 5

_NO_GAP = 0
_GAP_FOUND = 1
_GAP_ASKED = 2


class DownloadFailed(Exception):
    """This attempt to fetch a blob is over; the text says why."""


class Missing:
    """Whom to tell that chunks do not come; the agent sends it as a `status`."""

    def missing(self, blob: str, chunk_bytes: int, chunks: list[int]) -> None:
        """Say that these chunks were asked for and did not arrive."""
        raise ports.Unfilled("Missing.missing")


class ChunkStream:
    """Asks for chunks `first` to the last of a blob; `take` filters what arrives, `confirm` or `refuse` follow it."""

    def __init__(
        self,
        transport: ports.Transport,
        jitter: Jitter,
        told: Missing,
        sha256: str,
        size_bytes: int,
        chunk_bytes: int,
    ) -> None:
        self.transport = transport
        self.told = told
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.chunk_bytes = chunk_bytes
        self.total = protocol.chunk_count(size_bytes, chunk_bytes)
        self.quiet = BackOff(jitter, QUIET_MS, QUIET_LIMIT_MS)
        self.next = 0
        self.start(0)

    def start(self, first: int) -> None:
        """Begin at chunk `first`; nothing is asked for yet."""
        self.next = first
        self.tries = 0
        self.forget_window()

    def forget_window(self) -> None:
        """The connection is new: nothing is subscribed any more."""
        self.held = self.next  # topics held..asked-1 are subscribed
        self.asked = self.next
        self.seen: set[int] = set()
        self.gap = _NO_GAP
        self.deadline_ms = 0

    def complete(self) -> bool:
        """Whether the last chunk was confirmed."""
        return self.next >= self.total

    def expected_bytes(self) -> int:
        """Length of the next chunk."""
        return min(self.chunk_bytes, self.size_bytes - self.next * self.chunk_bytes)

    def step(self, now_ms: int) -> int:
        """Ask for what is due; returns milliseconds until there is something to do (0: something was done)."""
        if self.asked == self.next:
            self._ask_window(now_ms)
            return 0
        if now_ms < self.deadline_ms:
            return self.deadline_ms - now_ms
        if self.gap == _GAP_FOUND:
            self.gap = _GAP_ASKED
            self.quiet.reset()
        else:
            self._tell_missing()
        self._ask_again(now_ms)
        return 0

    def take(self, chunk: int, payload: bytes, now_ms: int) -> bool:
        """Whether this is the next chunk, and not withdrawn (an empty payload is never data)."""
        if not payload or not self.next <= chunk < self.asked:
            return False
        if chunk > self.next:
            if self.gap == _NO_GAP and not self.tries:
                self.gap = _GAP_FOUND
                self.deadline_ms = min(self.deadline_ms, now_ms + GAP_MS)
            self.seen.add(chunk)
            return False
        return True

    def confirm(self, now_ms: int) -> None:
        """The next chunk was good; asks for more before the window is empty."""
        self.next += 1
        dropped_later = self.tries > 0 or self.next in self.seen
        self.tries = 0
        self.gap = _NO_GAP
        self.quiet.reset()
        self.deadline_ms = now_ms + self.quiet.wait_ms()
        if self.complete():
            self.close()
        elif dropped_later:
            self._ask_again(now_ms)
        elif self.asked < self.total and self.asked - self.next <= protocol.WINDOW_CHUNKS // 2:
            self._ask_more()

    def refuse(self, now_ms: int) -> None:
        """The next chunk was bad: asked for again alone; raises DownloadFailed after MAX_TRIES."""
        self.tries += 1
        if self.tries >= MAX_TRIES:
            self.close()
            raise DownloadFailed(
                "chunk %d of blob %s is wrong, %d times in a row" % (self.next, self.sha256[:12], self.tries)
            )
        self.deadline_ms = now_ms + self.quiet.wait_ms()
        if self.tries == 1:
            self._subscribe(self.next, self.next + 1)
        else:
            # The broker's copy itself is bad; the one published again arrives by the same subscription.
            self.told.missing(self.sha256, self.chunk_bytes, [self.next])

    def _ask_window(self, now_ms: int) -> None:
        self.deadline_ms = now_ms + self.quiet.wait_ms()
        self._ask_more()

    def _ask_again(self, now_ms: int) -> None:
        self.seen = set()
        self.deadline_ms = now_ms + self.quiet.wait_ms()
        last = self.next + (1 if self.tries else protocol.WINDOW_CHUNKS)
        self._subscribe(self.next, min(last, self.total))

    def _ask_more(self) -> None:
        self._unsubscribe(self.held, self.next)
        self._subscribe(self.asked, min(self.next + protocol.WINDOW_CHUNKS, self.total))

    def _tell_missing(self) -> None:
        chunks = [chunk for chunk in range(self.next, self.asked) if chunk not in self.seen]
        self.told.missing(self.sha256, self.chunk_bytes, chunks)

    def _topics(self, first: int, end: int) -> list[str]:
        return [protocol.chunk_topic(self.sha256, self.chunk_bytes, chunk) for chunk in range(first, end)]

    def _subscribe(self, first: int, end: int) -> None:
        self.asked = max(self.asked, end)
        try:
            self.transport.subscribe([(topic, 0) for topic in self._topics(first, end)])
        except OSError:
            pass  # the connection is gone; a new one begins with `forget_window`

    def _unsubscribe(self, first: int, end: int) -> None:
        self.held = end
        try:
            if end > first:
                self.transport.unsubscribe(self._topics(first, end))
        except (OSError, MemoryError):
            pass  # a clean session forgets them anyway

    def close(self) -> None:
        """End the subscriptions of this blob."""
        self._unsubscribe(self.held, self.asked)
