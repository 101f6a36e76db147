"""What tests of several apps share: a Redis for messages that something changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import events
from fleet.cli.embedded import valkey_binary
from tests.services import free_port, running


@pytest.fixture
def valkey(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Valkey of its own, to which this thread has said nothing yet."""
    port = free_port()
    settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
    monkeypatch.setattr(events, "_speaker", events._Speaker())
    with running([str(valkey_binary()), "--port", str(port), "--dir", str(tmp_path), "--save", ""], port):
        yield
