"""Manifests that come for one app: at most one is held until it is accepted, refused, or no longer expired."""
# mypy: disable-error-code="type-arg"

import gc

from device_agent.core import offers

STORAGE_RETRY_MS = 5000
IDLE_MS = 60000
# Tries to judge a manifest in a full heap, each without the model that serves, before a new start, and before they get rare.
JUDGE_TRIES = 3


class Intake:
    """The manifest that came last, until it is judged."""

    def __init__(self, app) -> None:  # type: ignore[no-untyped-def]
        self.app = app
        self.device = app.device
        self.offer: "bytes | None" = None
        self.look_ms = 0
        self.tries = 0  # for which the heap was too full
        self.refused = ""  # digest of the manifest refused last, so that it is said once
        self.waited_for = ""

    def take(self, payload: bytes) -> None:
        """A manifest came; an empty one (nothing is desired) changes nothing, because nobody signed it."""
        if payload:
            self.offer = bytes(payload)  # a view of the transport's buffer is good for this call only
            self.look_ms = self.tries = 0

    def step(self, now_ms: int) -> int:
        """Judge what came; milliseconds to wait."""
        if self.offer is None or self.app.delivery.ends():
            return IDLE_MS
        if now_ms < self.look_ms:
            return self.look_ms - now_ms
        payload, self.offer = self.offer, None
        digest = offers.digest_of(payload)
        if digest in (self.app.state["manifest"], self.refused):
            return 0
        try:
            wait_ms = self._judge_in_room(payload, digest)
        except (OSError, MemoryError) as error:
            self.device.log("%s: a manifest cannot be taken in: %s" % (self.app.name, error))
            wait_ms = STORAGE_RETRY_MS
            if isinstance(error, MemoryError):
                wait_ms = self._wait_for_room(digest, now_ms)
        if wait_ms:
            self.offer, self.look_ms = payload, now_ms + wait_ms
        return 0

    def _judge_in_room(self, payload: bytes, digest: str) -> int:
        """Judge it; when the heap is too small for that, for this moment without the model that serves."""
        app = self.app
        try:
            return self._judge(payload, digest)
        except MemoryError:
            if app.serving is None or app.delivery.busy():
                raise
        app.stop_serving()
        gc.collect()
        try:
            return self._judge(payload, digest)
        finally:
            app.return_to_active()

    def _wait_for_room(self, digest: str, now_ms: int) -> int:
        """Milliseconds until the next try; a new start mends a heap in pieces, and helps a manifest once or never."""
        app, device = self.app, self.device
        self.tries += 1
        if self.tries < JUDGE_TRIES or app.delivery.busy():
            return STORAGE_RETRY_MS
        if device.can_restart and app.state.get("afresh") != digest:
            try:
                app.change({"afresh": digest})
                device.restart_soon(now_ms)
            except (OSError, MemoryError):
                pass  # unrecorded it might be done for ever
        return IDLE_MS

    def _judge(self, payload: bytes, digest: str) -> int:
        from device_agent.core.judging import judge

        return judge(self, payload, digest)
