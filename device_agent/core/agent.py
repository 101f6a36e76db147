"""The agent of one device: `step` drives it, `predict` and `label` are for the application.

Not thread-safe by itself: whoever calls from several threads holds one lock around `step`, `predict`, `label` and
`status`, and lets go of it while it waits (`transport.wait`). A model's run is the longest thing any of them does, but
for `Transport.fetch_range`.
"""
# mypy: disable-error-code="type-arg"

import os

from device_agent.core import ports, protocol
from device_agent.core.app import App
from device_agent.core.commands import Commands
from device_agent.core.device import Device
from device_agent.core.link import Link
from device_agent.core.ring import Ring

RING_ENTRIES = 512
REPORT_S = 30
RECORD_RETRY_MS = 5000
MAX_WAIT_MS = 1000


class NoModel(Exception):
    """There is no model to answer with, yet."""


class Agent:
    """One device.

    `config` is the provisioning file; optional fields beside it: board, flash_bytes (most an artifact may have),
    spool_bytes, ring_entries, ask (a person here says when something is installed). `log` takes lines for a person (None: nobody reads them), `restart` starts the agent again (None: it cannot),
    `entropy(n)` gives n random bytes.
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        config: dict,
        clock: ports.Clock,
        transport: ports.Transport,
        runtime: ports.Runtime,
        storage: ports.Storage,
        log=None,
        restart=None,
        entropy=os.urandom,
    ) -> None:
        self.clock = clock
        self.restart = restart
        self.device = Device(config, clock, transport, storage, entropy, log or (lambda text: None))
        self.device.can_restart = restart is not None
        self.ring = Ring(config.get("ring_entries", RING_ENTRIES))
        self.apps = {
            name: App(self.device, name, runtime, self.ring) for name in config.get("apps") or ["main"]
        }
        self.link = Link(self.device, self.apps)
        self.commands = Commands(self.device, self.apps)
        self.report_ms: int = 1000 * config.get("report_s", REPORT_S)
        self.reported_ms = clock.ticks_ms()
        self.recorded = False
        self.record_ms = 0
        self.turn = 0
        self._begin()

    def _begin(self) -> None:
        for app in self.apps.values():
            app.delivery.count_boot()
        self._record_boot(self.clock.ticks_ms())
        for app in self.apps.values():
            app.start()
        self.workers = [self._step_link, self._step_inbox, self._step_windows, self._step_restart]
        self.workers += [app.step for app in self.apps.values()]

    # --- for the host ----------------------------------------------------------------------------

    def step(self, now_ms: int) -> int:
        """Do one thing that is due and return 0, or return for how many milliseconds nothing is (at most 1000)."""
        wait = MAX_WAIT_MS
        for _ in range(len(self.workers)):
            self.turn = (self.turn + 1) % len(self.workers)
            worker_wait = self.workers[self.turn](now_ms)
            if worker_wait <= 0:
                return 0
            wait = min(wait, worker_wait)
        return wait

    def close(self) -> None:
        """An orderly end: metrics are stored, and a trial goes on from here after the next start."""
        for app in self.apps.values():
            app.close(self.clock.ticks_ms())
        self.device.spool.tidy()
        self.link.close()

    def status(self) -> dict:
        """What a person at the device wants to know."""
        device = self.device
        return {
            "device": device.name,
            "online": device.online,
            "boot": device.boot,
            "waiting": device.spool.waiting(),
            "dropped": device.spool.dropped,
            "asks": dict(self.commands.asked),
            "apps": {name: self.apps[name].status() for name in self.apps},
        }

    # --- for the application ---------------------------------------------------------------------

    def predict(self, x: object, app: str = "") -> "tuple[int, list]":
        """(prediction id, outputs) of the model that serves; raises NoModel, or what the runtime raises."""
        chosen = self._app(app)
        if chosen.serving is None:
            raise NoModel(chosen.silence())
        outputs, answer = chosen.predict(x)
        return self.ring.put(self.device.boot << 32, (chosen, answer)), outputs

    def reset(self, app: str = "") -> None:
        """A new stream of inputs begins: a model that keeps a state from one prediction to the next starts anew."""
        self._app(app).reset()

    def label(self, prediction_id: object, y: object) -> bool:
        """Tell the truth about a prediction: class number or name, or the true value or values.

        False when the prediction is unknown, forgotten, labelled before, or its model no longer serves. Raises
        ValueError when `y` cannot be the answer to anything.
        """
        found = self.ring.take(prediction_id)
        if found is None:
            return False
        app, answer = found
        return bool(app.label(answer, y))

    def consent(self, answer: str, app: str = "") -> bool:
        """What a person says to an installation that waits: now, tonight or no; False when none waits for consent."""
        from device_agent.core.consent import say

        return say(self.commands, self._app(app).name, answer)

    def _app(self, name: str) -> App:
        if not name:
            return next(iter(self.apps.values()))
        if name not in self.apps:
            raise ValueError("no app is called %s; this device has %s" % (name, ", ".join(sorted(self.apps))))
        return self.apps[name]

    # --- steps -----------------------------------------------------------------------------------

    def _record_boot(self, now_ms: int) -> None:
        try:
            self.device.save()
            self.recorded = True
        except (OSError, MemoryError) as error:
            # Unrecorded, the next boot would use the same numbers, and its reports would be taken for these.
            self.device.log("offline until the state can be stored: %s" % error)
            self.record_ms = now_ms + RECORD_RETRY_MS

    def _step_link(self, now_ms: int) -> int:
        if self.recorded:
            return self.link.step(now_ms)
        if now_ms >= self.record_ms:
            self._record_boot(now_ms)
        return RECORD_RETRY_MS

    def _step_inbox(self, now_ms: int) -> int:
        try:
            message = self.device.transport.receive()
            if message is None:
                return MAX_WAIT_MS
            self._take(message[0], message[1], now_ms)
        except (protocol.ProtocolError, MemoryError) as error:
            self.device.log("a message is ignored: %s" % error)
        return 0

    def _take(self, topic: str, payload: bytes, now_ms: int) -> None:
        if topic.startswith(protocol.ROOT + "/blobs/"):
            sha256, chunk_bytes, chunk = protocol.parse_chunk_topic(topic)
            for app in self.apps.values():
                app.delivery.take_chunk(sha256, chunk_bytes, chunk, payload, now_ms)
            return
        device, leaf, name = protocol.parse_device_topic(topic)
        if device != self.device.name:
            return
        if leaf == "command":
            self._obey(payload, now_ms)
        elif leaf == "desired" and name in self.apps:
            self.apps[name].intake.take(payload)

    def _obey(self, payload: bytes, now_ms: int) -> None:
        from device_agent.core.commands import obey

        obey(self.commands, payload, now_ms)

    def _step_windows(self, now_ms: int) -> int:
        due_ms = self.reported_ms + self.report_ms
        if now_ms < due_ms:
            return due_ms - now_ms
        self.reported_ms = now_ms
        for app in self.apps.values():
            app.rotate()
        return 0

    def _step_restart(self, now_ms: int) -> int:
        due_ms = self.device.restart_ms
        if due_ms is None:
            return MAX_WAIT_MS
        if now_ms < due_ms:
            return due_ms - now_ms
        self.device.restart_ms = None
        try:
            self.close()
        except MemoryError:
            pass  # which the new start mends
        if self.restart is not None:
            self.restart()
        return MAX_WAIT_MS
