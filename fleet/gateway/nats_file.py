"""The users of nats-server: one file rendered whole from rows, written by rename, read again on SIGHUP.

The file holds passwords as they are: they are 256 random bits, so a slow hash would protect nothing and would cost every
connection; the keys they are derived from lie beside it with the same mode 0600.
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fleet.gateway.rights import User, allowed_users, gateway_user

# A reload reads the whole file; at most two a second.
RELOAD_EVERY_SECONDS = 0.5


def pid_file(users_file: Path) -> Path:
    """Where the broker writes its process id: beside its users' file."""
    return users_file.with_suffix(".pid")


def render(users: Iterable[User]) -> str:
    """The text to be included at the top level of the broker's configuration (JSON is a part of its format)."""
    return json.dumps({"authorization": {"users": [_entry(user) for user in users]}}, indent=0)[2:-2] + "\n"


def write(users_file: Path) -> bool:
    """Write the users of now; False when the file held exactly these already."""
    text = render([gateway_user(), *allowed_users()])
    try:
        if users_file.read_text() == text:
            return False
    except FileNotFoundError:
        users_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = users_file.with_name(f".{users_file.name}.{secrets.token_hex(6)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(users_file)
    return True


class Reloader:
    """Asks the broker to read its users again, at most twice a second."""

    def __init__(self, users_file: Path) -> None:
        self.file = pid_file(users_file)
        self._last = float("-inf")

    def wait_s(self) -> float:
        """Seconds until the next reload may be asked for."""
        return max(0.0, self._last + RELOAD_EVERY_SECONDS - time.monotonic())

    def reload(self) -> bool:
        """Send the signal; False when no broker runs here, which then reads the file when it starts."""
        self._last = time.monotonic()
        try:
            os.kill(int(self.file.read_text().strip()), signal.SIGHUP)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return False
        return True


def _entry(user: User) -> dict[str, Any]:
    return {
        "user": user.credentials.username,
        "password": user.credentials.password,
        "allowed_connection_types": ["MQTT"],
        "permissions": {
            "publish": {"allow": [_subject(topic) for topic in user.publish]},
            "subscribe": {"allow": [_subject(topic) for topic in user.subscribe]},
        },
    }


def _subject(topic: str) -> str:
    """An MQTT topic filter as the NATS subject it becomes inside the broker."""
    return topic.replace("/", ".").replace("+", "*").replace("#", ">")
