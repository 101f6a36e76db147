"""What tests of the Linux agent share: a provisioning, a tiny model in a slot, an agent on a loopback broker."""

from pathlib import Path
from typing import Any

import pytest


def provisioning(**changes: Any) -> dict[str, Any]:
    """A usable provisioning file."""
    fields: dict[str, Any] = {
        "v": 1,
        "device": "pi-1",
        "target": "raspberry-pi-4",
        "runtime": "onnxruntime",
        "apps": ["main"],
        "chunk_bytes": 32768,
        "heartbeat_s": 30,
        "report_s": 30,
        "broker": {"host": "127.0.0.1", "port": 1, "tls": False, "ca": None},
        "client_id": "pi-1-0123456789abcdef",
        "username": "pi-1",
        "password": "secret",
        "keys": [{"id": "00" * 8, "key": "11" * 32}],
        "server": "http://127.0.0.1:1",
    }
    return {**fields, **changes}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An empty state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder
