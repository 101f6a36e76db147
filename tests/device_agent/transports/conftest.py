"""A real broker (nats-server) for the transports."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services import free_port, installed, listens, until


class Broker:
    """One nats-server with MQTT on a port of its own, which tests may stop and start."""

    def __init__(self, folder: Path, tls: dict[str, str] | None = None) -> None:
        self.port = free_port()
        mine = {"publish": ["fleet.v1.d.pi-1.>"], "subscribe": ["fleet.v1.d.pi-1.>", "fleet.v1.blobs.>"]}
        users: list[dict[str, Any]] = [
            {"user": "pi-1", "password": "secret", "permissions": mine},
            {"user": "server", "password": "server"},
        ]
        config: dict[str, Any] = {
            "server_name": "test",
            "port": -1,
            "host": "127.0.0.1",
            "jetstream": {"store_dir": str(folder / "store")},
            "mqtt": {
                "host": "127.0.0.1",
                "port": self.port,
                "max_ack_pending": 500,
                **({"tls": tls} if tls else {}),
            },
            "authorization": {"users": users},
            "max_payload": 1 << 20,
        }
        self._config = folder / "nats.conf"
        self._config.write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it listens."""
        program = Path(sys.executable).parent / "nats-server"
        command = [str(program) if program.exists() else installed("nats-server"), "-c", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the broker", lambda: listens(self.port))

    def stop(self) -> None:
        """Kill it as a power cut would."""
        if self._process:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def config(self, **changes: Any) -> dict[str, Any]:
        """What the provisioning file of the device says about this broker."""
        address = {"host": "127.0.0.1", "port": self.port, "tls": False, "ca": None}
        base = {"client_id": "pi-1-0123456789abcdef", "username": "pi-1", "password": "secret"}
        return {"broker": {**address, **changes.pop("broker", {})}, **base, **changes}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker."""
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()
