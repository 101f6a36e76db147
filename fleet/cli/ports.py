"""Ports of this machine: which are free, and who holds the others."""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

REMEMBERED = "ports.json"
LISTENING = "0A"  # the state column of /proc/net/tcp


@dataclass(frozen=True)
class Ports:
    """Ports to listen on; 0 means any free one, if possible that of the last start."""

    web: int = 8000
    mqtt: int = 1883
    redis: int = 0

    def settled(self, var: Path, host: str) -> "Ports":
        """With a port for each 0: devices look for their broker where it was when they enrolled."""
        last = recalled(var)
        return Ports(
            self.web or _same_or_free(last.web, host),
            self.mqtt or _same_or_free(last.mqtt, host),
            self.redis or _same_or_free(last.redis, "127.0.0.1"),
        )

    def remember(self, var: Path) -> None:
        """Keep them for the next start."""
        (var / REMEMBERED).write_text(json.dumps(asdict(self)))


def recalled(var: Path) -> Ports:
    """The ports of the last start on a folder; zeros when there was none."""
    try:
        found = json.loads((var / REMEMBERED).read_text())
        return Ports(*(int(found[name]) for name in ("web", "mqtt", "redis")))
    except (OSError, ValueError, KeyError, TypeError):
        return Ports(0, 0, 0)


def _same_or_free(port: int, host: str) -> int:
    return port if 0 < port < 65536 and is_free(port, host) else free_port(host)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        # As the servers do: connections of a stack that just ended must not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def holder(port: int) -> str:
    """`name (pid 123)` of the process that listens on the port; empty where the system does not tell."""
    sockets = _listening_sockets(port)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = {link.readlink().name for link in (process / "fd").iterdir() if link.is_symlink()}
            if held & sockets:
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:  # ended meanwhile, or another user's
            continue
    return ""


def _listening_sockets(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{columns[9]}]")
    return found
