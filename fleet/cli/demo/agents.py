"""The demonstration's devices, each with a credential of its own: an agent and a workload process, or a board."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fleet.cli.demo import boards
from fleet.cli.guard import Guard

STOP_SECONDS = 10


@dataclass(frozen=True)
class Place:
    """A device of the demonstration: its name, hardware class, group and runtime."""

    name: str
    target: str
    group: str
    runtime: str = "onnxruntime"


LINUX = (
    Place("workshop-1", "raspberry-pi-4", "workshop"),
    Place("workshop-2", "raspberry-pi-4", "workshop"),
    Place("workshop-3", "raspberry-pi-zero-2-w", "workshop"),
    Place("field-1", "raspberry-pi-4", "field"),
    Place("field-2", "raspberry-pi-zero-2-w", "field"),
    Place("field-3", "raspberry-pi-zero-2-w", "field"),
)
BOARDS = (
    Place("workshop-4", "rp2040", "workshop", "micropython"),
    Place("field-4", "rp2040", "field", "micropython"),
    Place("field-5", "rp2040", "field", "micropython"),
)
# The VM has no wheel for every machine; where it is missing, the story is told without boards.
PLACES = (*LINUX, *BOARDS) if boards.machine() else LINUX
_ON_BOARD = {place.name for place in BOARDS}


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Devices:
    """Agent and workload processes; `stop()` ends them all, in an orderly way first."""

    folder: Path
    server: str
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    guard: Guard = field(default_factory=Guard)

    def state_folder(self, name: str) -> Path:
        """Where the agent of a device keeps its state."""
        return self.folder / name

    def start_agent(self, name: str, token: str = "") -> None:
        """Start one agent; with a token it enrols itself first. A board is enrolled only: it starts with its rows."""
        if name in _ON_BOARD:
            if token:
                self._enrol_board(name, token)
            return
        port = self.ports.setdefault(name, free_port())
        enrol = ["--server", self.server, "--token", token, "--device", name] if token else []
        state = [
            "--state",
            str(self.state_folder(name)),
            "--credentials",
            str(self.folder / "credentials" / name),
        ]
        state += ["--http", str(port)]
        self._start(f"{name}.agent", ["-m", "device_agent", "run", *state, *enrol])

    def start_workload(self, name: str, rows: Path, rate: float) -> None:
        """Start the application of one device, which asks its agent for predictions."""
        if name in _ON_BOARD:
            lines = boards.lines_of(rows, self.folder / f"{name}.rows")
            code = boards.compiled(self.folder / "compiled")
            self._spawn(f"{name}.agent", boards.command(self.state_folder(name), lines, rate), code)
            return
        port = str(self.ports[name])
        module = ["-m", "fleet.cli.demo.workload", "--port", port]
        self._start(f"{name}.workload", [*module, "--rows", str(rows), "--rate", str(rate)])

    def log(self, child: str) -> Path:
        """Where a child writes what it says."""
        return self.folder / f"{child}.log"

    def pid(self, child: str) -> int:
        """Process id of a child such as `field-1.agent`."""
        return self.children[child].pid

    def kill(self, child: str) -> None:
        """End one child at once, as a power cut would."""
        process = self.children.pop(child)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.guard.remove(process.pid)

    def exited(self) -> list[str]:
        """Children that ended without being asked to."""
        return [name for name, process in self.children.items() if process.poll() is not None]

    def stop(self) -> None:
        """Ask every child to end, wait, then insist."""
        for process in self.children.values():
            process.terminate()
        for process in self.children.values():
            end(process)
        self.children.clear()
        self.guard.dismiss()

    def _enrol_board(self, name: str, token: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        who = ["--server", self.server, "--token", token, "--device", name]
        command = [
            sys.executable,
            "-m",
            "device_agent",
            "enrol",
            *who,
            "--state",
            str(self.state_folder(name)),
        ]
        with self.log(f"{name}.agent").open("ab") as out:
            subprocess.run(command, stdout=out, stderr=out, check=True)

    def _start(self, child: str, arguments: Iterable[str]) -> None:
        self._spawn(child, [sys.executable, *arguments], None)

    def _spawn(self, child: str, command: list[str], folder: Path | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # One thread a device: all agents share two cores, as on no real device.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        out: IO[bytes]
        with self.log(child).open("ab") as out:
            self.children[child] = subprocess.Popen(
                command, cwd=folder, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        self.guard.add(self.children[child].pid)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a child that was asked to end, and kill it when it does not."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
