"""The agent on Linux: its clock, its folder, and the loop that lets threads use it."""

import fcntl
import logging
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from device_agent import config as provisioning
from device_agent.core import answers, ports
from device_agent.core.agent import Agent
from device_agent.core.storage import FileStorage
from device_agent.errors import AgentError, MissingPackageError
from device_agent.runtimes.table import runtime

# Before this day the clock was never set: a board without a battery starts in 1970, or where it was switched off.
CLOCK_TRUSTED_FROM = 1_735_689_600  # 2025-01-01

# How long a stop may go unnoticed: a signal handler cannot safely wake a waiting transport.
STOP_LOOK_MS = 250

log = logging.getLogger("device_agent")


class SystemClock(ports.Clock):
    """The operating system's clocks."""

    def ticks_ms(self) -> int:
        """Milliseconds since boot."""
        return time.monotonic_ns() // 1_000_000

    def ticks_us(self) -> int:
        """Microseconds since boot."""
        return time.monotonic_ns() // 1_000

    def utc(self) -> int | None:
        """Seconds since 1970, or None while the clock was not set."""
        now = int(time.time())
        return now if now >= CLOCK_TRUSTED_FROM else None


class Turn:
    """A lock that is given in the order in which it was asked for.

    A plain lock would starve applications during a download, when the loop asks for it again at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class Host:
    """One agent in this process; every method may be called from any thread."""

    def __init__(
        self, config: dict[str, Any], transport: ports.Transport, model_runtime: ports.Runtime, state: Path
    ) -> None:
        self.restart_asked = False
        self._clock = SystemClock()
        self._transport = transport
        self._turn = Turn()
        self._stopping = False  # a plain flag, because a signal handler sets it
        self._thread: threading.Thread | None = None
        self._lock_file = _only_agent_of(state)
        self._agent = Agent(
            config,
            self._clock,
            transport,
            model_runtime,
            FileStorage(str(state)),
            log=log.info,
            restart=self._restart,
        )

    def run(self) -> None:
        """Drive the agent until `stop`, then say good-bye to the broker."""
        try:
            while not self._stopping:
                with self._turn:
                    wait_ms = self._agent.step(self._clock.ticks_ms())
                if wait_ms > 0 and not self._stopping:
                    self._transport.wait(min(wait_ms, STOP_LOOK_MS))
        finally:
            with self._turn:
                self._agent.close()
            self._lock_file.close()

    def stop(self) -> None:
        """Let `run` end within a second; safe in a signal handler."""
        self._stopping = True

    def predict(self, x: object, app: str = "") -> tuple[int, list[Any]]:
        """(prediction id, outputs); raises NoModel before a model is installed, ValueError when `x` does not fit."""
        with self._turn:
            return self._agent.predict(x, app)

    def classify(self, x: object, app: str = "") -> tuple[int, list[Any], int | None]:
        """What `predict` says, and the class number when the model's task is classification."""
        with self._turn:
            prediction, outputs = self._agent.predict(x, app)
            serving = self._agent.apps[app].serving if app else next(iter(self._agent.apps.values())).serving
        if serving is None or serving.task != answers.CLASSIFICATION:
            return prediction, outputs, None
        return prediction, outputs, answers.top_class(answers.flat(outputs[0]))[0]

    def label(self, prediction: object, y: object) -> bool:
        """Tell the truth about a prediction; False when it is unknown, too old, or labelled already."""
        with self._turn:
            return self._agent.label(prediction, y)

    def reset(self, app: str = "") -> None:
        """A new stream of inputs begins: a model that keeps a state starts anew."""
        with self._turn:
            self._agent.reset(app)

    def consent(self, answer: str, app: str = "") -> bool:
        """What a person here says to an installation that waits: now, tonight or no; False when none waits."""
        with self._turn:
            return self._agent.consent(answer, app)

    def status(self) -> dict[str, Any]:
        """What a person at the device wants to know."""
        with self._turn:
            return self._agent.status()

    def __enter__(self) -> "Host":
        """Run in a thread of its own while the application works."""
        self._thread = threading.Thread(target=self.run, name="device-agent", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _restart(self) -> None:
        self.restart_asked = True
        self.stop()


def open_host(state: Path | str, credentials: Path | str | None = None, ask: bool = False) -> Host:
    """The agent of an enrolled device, with the runtime of its target; raises AgentError.

    `credentials` is the folder of `provision.json` when it is not the state folder; `ask`: a person here says when
    something is installed (also "ask": true in that file).
    """
    folder = Path(state)
    config = provisioning.load(Path(credentials or state))
    config["ask"] = ask or bool(config.get("ask"))
    model_runtime = runtime(config["runtime"])
    try:
        from device_agent.transports.paho import PahoTransport
    except ImportError as error:
        raise MissingPackageError("paho-mqtt", "agent") from error
    try:
        return Host(config, PahoTransport(config), model_runtime, folder)
    except OSError as error:
        raise AgentError(f"{folder} is no usable state folder: {error}") from error


def _only_agent_of(state: Path) -> IO[bytes]:
    """Two agents on one folder would spoil each other's slots."""
    state.mkdir(parents=True, exist_ok=True)
    lock_file = (state / "agent.lock").open("wb")
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock_file.close()
        raise AgentError(
            f"another agent already runs on {state}; stop it, or give this one a folder of its own"
        ) from error
    return lock_file
