"""Real services for tests, each on a free port and in a folder of its own; loud skips where one is not installed."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

READY_SECONDS = 30


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(what: str, look: Callable[[], object], seconds: float = READY_SECONDS) -> None:
    """Look again until the answer is true; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def installed(name: str) -> str:
    """Path of a server program; skips the test, saying how to get it, where it is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found:
        for folder in sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True):
            found = found or shutil.which(name, path=folder)
    if not found:
        pytest.skip(
            f"{name} is not installed, so this is NOT tested here (as root on Debian, `make test` installs it)"
        )
    return found


@contextmanager
def running(arguments: list[str], port: int, **options: object) -> Iterator["subprocess.Popen[bytes]"]:
    """A server process that listens on a port, ended with the block."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        until(f"{Path(arguments[0]).name} on port {port}", lambda: listens(port))
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL cluster of its own; yields its DATABASE_URL."""
    server, initdb = installed("postgres"), installed("initdb")
    data, port = folder / "postgresql", free_port()
    data.mkdir(parents=True)
    identity: dict[str, object] = {"cwd": "/"}
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root; its user must also be able to reach the folder.
        account = pwd.getpwnam("postgres")
        identity |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(data, account.pw_uid, account.pw_gid)
        for parent in data.parents:
            if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o001)
    command = [initdb, "-D", str(data), "-U", "tinyfleet", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(command, check=True, capture_output=True, **identity)  # type: ignore[call-overload]
    settings = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    with running([server, "-D", str(data), "-p", str(port), *settings], port, **identity):
        yield f"postgres://tinyfleet@127.0.0.1:{port}/postgres"


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis of its own; yields its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with running([installed("redis-server"), "--port", str(port), "--dir", str(folder), "--save", ""], port):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def mosquitto(folder: Path) -> Iterator[str]:
    """A Mosquitto with dynamic security whose administrator is the gateway; yields its MQTT_URL."""
    server, control = installed("mosquitto"), installed("mosquitto_ctrl")
    plugins = glob.glob("/usr/lib/*/mosquitto_dynamic_security.so")
    if not plugins:
        pytest.skip("mosquitto has no dynamic security plugin here, so this is NOT tested")
    folder.mkdir(parents=True, exist_ok=True)
    rights, port, password = folder / "dynsec.json", free_port(), "only-for-this-test"
    answers = f"{password}\n{password}\n".encode()
    command = [control, "dynsec", "init", str(rights), "gw"]
    subprocess.run(command, input=answers, check=True, capture_output=True)
    config = folder / "mosquitto.conf"
    config.write_text(
        f"per_listener_settings false\nlistener {port} 127.0.0.1\nallow_anonymous false\n"
        f"plugin {plugins[0]}\nplugin_opt_config_file {rights}\nset_tcp_nodelay true\n"
        f"max_queued_messages 100000\nmax_inflight_messages 1000\n"
        + ("user root\n" if os.geteuid() == 0 else "")
    )
    with running([server, "-c", str(config)], port):
        yield f"mqtt://gw:{password}@127.0.0.1:{port}?shared=true"
