"""Starts child processes in order, waits until each is ready, starts crashed ones again, and stops them all."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.cli import guardian
from fleet.cli.guard import Guard

BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 1.0, 30.0
STEADY_SECONDS = 60.0
POLL_SECONDS = 0.1
LOG_MAX_BYTES = 16 * 1024 * 1024
SHOWN_LINES = 4

Say = Callable[[str], None]


class StartError(Exception):
    """Something could not be started; the text is one line with the way out."""


@dataclass(frozen=True)
class Service:
    """What to run, how to tell that it is ready, and how it is asked to end."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    ready_seconds: float = 60.0


@dataclass
class Child:
    """One service as it runs, and what happened to it."""

    service: Service
    process: "subprocess.Popen[bytes]"
    started: float
    wave: int
    restarts: int = 0
    backoff: float = BACKOFF_FIRST_SECONDS
    again_at: float | None = None


class Supervisor:
    """Children in waves that were started side by side; the waves end in the opposite order."""

    def __init__(self, logs: Path, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self.logs = logs
        self.say = say
        self.clock = clock
        self.children: dict[str, Child] = {}
        self.guard = Guard()
        self._lock = threading.RLock()
        self._stopping = False

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every child that runs."""
        return {name: child.process.pid for name, child in self.children.items() if child.again_at is None}

    def log(self, name: str) -> Path:
        """Where a child writes what it says."""
        return self.logs / f"{name}.log"

    def start(self, *services: Service) -> None:
        """Start the services side by side and return when all are ready; StartError names the one that is not."""
        with self._lock:
            wave = 1 + max((child.wave for child in self.children.values()), default=0)
            for service in services:
                self.children[service.name] = Child(service, self._spawn(service), self.clock(), wave)
        for service in services:
            self._wait_until_ready(service)

    def run(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> str:
        """Run one command to its end and return what it printed; StartError shows its last lines."""
        done = subprocess.run(
            list(command), env=dict(env), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("a") as out:
            out.write(done.stderr)  # what it printed may hold a password, which belongs in no log
        if done.returncode != 0:
            said = "\n".join(last_lines(self.log(name)))
            raise StartError(f"{name} failed; {self.log(name)} ends with:\n{said}")
        return done.stdout.strip()

    def watch_once(self) -> None:
        """Look at every child once: note the crashed ones, start again those whose pause is over, keep logs short."""
        with self._lock:
            if self._stopping:
                return
            self.guard.renew(child.process.pid for child in self.children.values())
            for child in self.children.values():
                if child.again_at is not None:
                    self._start_again(child)
                elif child.process.poll() is not None:
                    self._note_crash(child)
                shorten(self.log(child.service.name))

    def stop(self, grace: float = 10.0) -> None:
        """End every child, the last wave first; what has not ended after `grace` seconds is killed."""
        with self._lock:
            self._stopping = True
        children = [child for child in self.children.values() if child.again_at is None]
        for wave in sorted({child.wave for child in children}, reverse=True):
            self._end([child for child in children if child.wave == wave], grace)
        self.children.clear()
        self._stopping = False
        self.guard.dismiss()

    def kill_all(self) -> None:
        """End every child at once, without asking."""
        for child in list(self.children.values()):
            guardian.send(child.process.pid, signal.SIGKILL)

    def _spawn(self, service: Service) -> "subprocess.Popen[bytes]":
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(service.name).open("ab") as out:
            process = subprocess.Popen(
                list(service.command),
                env=dict(service.env) or None,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches only the supervisor, and grandchildren end with the child.
                start_new_session=True,
            )
        self.guard.add(process.pid)
        return process

    def _wait_until_ready(self, service: Service) -> None:
        child = self.children[service.name]
        deadline = self.clock() + service.ready_seconds
        while not service.ready():
            if child.process.poll() is not None:
                said = "\n".join(last_lines(self.log(service.name)))
                raise StartError(f"{service.name} ended at once; {self.log(service.name)} ends with:\n{said}")
            if self.clock() > deadline:
                seconds = f"{service.ready_seconds:.0f} s"
                raise StartError(
                    f"{service.name} was not ready within {seconds}; see {self.log(service.name)}"
                )
            time.sleep(POLL_SECONDS)

    def _note_crash(self, child: Child) -> None:
        self._clear_group(child)
        now = self.clock()
        child.backoff = BACKOFF_FIRST_SECONDS if now - child.started > STEADY_SECONDS else child.backoff
        child.again_at = now + child.backoff
        name, code = child.service.name, child.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = "".join(f"\n    {line}" for line in last_lines(self.log(name)))
        self.say(f"{name} {how}; it starts again in {child.backoff:.0f} s ({self.log(name)}){lines}")
        child.backoff = min(2 * child.backoff, BACKOFF_MAX_SECONDS)

    def _start_again(self, child: Child) -> None:
        if child.again_at is None or self.clock() < child.again_at:
            return
        child.process, child.started, child.again_at = self._spawn(child.service), self.clock(), None
        child.restarts += 1
        self.say(f"{child.service.name} runs again")

    def _end(self, children: Sequence[Child], grace: float) -> None:
        for child in children:
            # Only the leader is asked: Celery's own children must not be torn from under it.
            child.process.send_signal(child.service.stop_signal)
        deadline = time.monotonic() + grace
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{child.service.name} did not end within {grace:.0f} s and is killed")
            self._clear_group(child)
            child.process.wait()

    def _clear_group(self, child: Child) -> None:
        guardian.send(child.process.pid, signal.SIGKILL)
        self.guard.remove(child.process.pid)


def last_lines(log: Path, count: int = SHOWN_LINES) -> list[str]:
    """The last lines of a log that say something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.path.getsize(log) - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line.rstrip() for line in lines if line.strip()][-count:]


def shorten(log: Path, limit: int = LOG_MAX_BYTES) -> None:
    """Move a log that grew over `limit` aside; its writer appends, so it goes on at the start of the emptied file."""
    try:
        if log.stat().st_size <= limit:
            return
    except OSError:
        return
    log.with_suffix(".log.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)
