"""Which server the commands speak to, and with which token.

In this order: the options --url and --token, TINYFLEET_URL and TINYFLEET_TOKEN, the stack that runs on ./var (or
TINYFLEET_VAR), and what `tinyfleet login` kept.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.cli.client import Client
from fleet.cli.embedded import private
from fleet.cli.stack import running_stack

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass
class Choice:
    """What the command line said."""

    url: str = ""
    token: str = ""


chosen = Choice()


@dataclass(frozen=True)
class Server:
    """A server's address, a token for it, and where they were found."""

    url: str
    token: str
    source: str


def client() -> Client:
    """A client for the server that was chosen."""
    server = find()
    return Client(server.url, server.token)


def find() -> Server:
    """The server that was chosen; a token found in one place never goes to a server named in another."""
    url = chosen.url or os.environ.get("TINYFLEET_URL", "")
    token = chosen.token or os.environ.get("TINYFLEET_TOKEN", "")
    known = [server for server in (_local(), _kept()) if server is not None]
    if not url:
        found = known[0] if known else Server(DEFAULT_URL, "", "the default")
        return Server(found.url, token or found.token, found.source)
    matching = [server.token for server in known if server.url.rstrip("/") == url.rstrip("/")]
    return Server(url, token or (matching[0] if matching else ""), "--url" if chosen.url else "TINYFLEET_URL")


def keep(url: str, token: str) -> Path:
    """Remember a server and its token for later commands; returns the file."""
    private(_file(), json.dumps({"url": url, "token": token}) + "\n")
    return _file()


def var_folder() -> Path:
    """The folder of the local stack."""
    return Path(os.environ.get("TINYFLEET_VAR", "var")).expanduser().absolute()


def _local() -> Server | None:
    var = var_folder()
    stack = running_stack(var)
    if stack is None:
        return None
    return Server(str(stack["url"]), str(_read(var / "admin.json").get("token", "")), str(var))


def _kept() -> Server | None:
    kept = _read(_file())
    return Server(str(kept["url"]), str(kept.get("token", "")), str(_file())) if kept.get("url") else None


def _file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "tinyfleet" / "login.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
