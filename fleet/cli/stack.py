"""The whole embedded stack in one object: what `tinyfleet up`, the demonstration and the system tests start.

with Stack(Path("var")) as stack:
    print(stack.url, stack.token)
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from fleet.cli import embedded, ports
from fleet.cli.django_services import application_services
from fleet.cli.ports import Ports
from fleet.cli.supervisor import Say, Service, StartError, Supervisor

WATCH_SECONDS = 0.2
# Services that may run elsewhere, and the ports they usually have.
GIVEN_SERVICES = {"REDIS_URL": 6379, "MQTT_URL": 1883}
ANYWHERE = ("0.0.0.0", "::")

# A module that each extra brings: without it the children could not start.
NEEDED = {
    "django": "server",
    "celery": "server",
    "uvicorn": "server",
    "paho": "server",
    "onnx": "compress",
    "onnxruntime": "compress",
}
DEMO_NEEDS = {**NEEDED, "torch": "compress", "onnxscript": "compress", "sklearn": "demo"}


FREE = Ports(0, 0, 0)


@dataclass(frozen=True)
class Reach:
    """Who can reach the stack: the address it listens on, the name others use, and the certificate it shows."""

    listen: str = "127.0.0.1"
    public_url: str = ""
    tls: tuple[Path, Path] | None = None

    @property
    def near(self) -> str:
        """The address under which this machine reaches its own servers."""
        return "127.0.0.1" if self.listen in ANYWHERE else self.listen


class Stack:
    """Valkey, broker, web, workers, beat and gateway, with their data in one folder.

    `env` may set any variable of the server; where it names a REDIS_URL or MQTT_URL, that service is used and none
    is started.
    """

    def __init__(
        self,
        var: Path,
        chosen: Ports | None = None,
        reach: Reach | None = None,
        *,
        env: Mapping[str, str] | None = None,
        say: Say = lambda line: None,
    ) -> None:
        self.var = var.absolute()
        self.reach = reach or Reach()
        self.say = say
        self.given = dict(env or {})
        self.ports = (chosen or Ports()).settled(self.var, self.reach.near)
        self.supervisor = Supervisor(self.var / "log", say)
        self.first_words = ""
        self.ready = False
        self._lock: IO[str] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where this machine reaches the pages and the API."""
        scheme = "https" if self.reach.tls else "http"
        return f"{scheme}://{_bracketed(self.reach.near)}:{self.ports.web}"

    @property
    def public_url(self) -> str:
        """Where others reach it."""
        return self.reach.public_url.rstrip("/") or self.url

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every child that runs."""
        return self.supervisor.pids

    @property
    def admin(self) -> dict[str, str]:
        """User name, password and API token of the administrator."""
        found: dict[str, str] = json.loads((self.var / "admin.json").read_text())
        return found

    @property
    def token(self) -> str:
        """The administrator's API token."""
        return self.admin["token"]

    @property
    def env(self) -> dict[str, str]:
        """The environment of every child: what was given, and where the embedded services are."""
        users = self.var / "broker" / "users.conf"
        made = {
            "DJANGO_SETTINGS_MODULE": "fleet.config.settings",
            "TINYFLEET_VAR": str(self.var),
            "PUBLIC_URL": self.public_url,
            "PYTHONUNBUFFERED": "1",
        }
        if self._starts_valkey:
            secret = embedded.password(self.var / "valkey" / "password")
            made["REDIS_URL"] = f"redis://:{secret}@127.0.0.1:{self.ports.redis}/0"
        if self._starts_broker:
            scheme = "mqtts" if self.reach.tls else "mqtt"
            made["MQTT_URL"] = f"{scheme}://{_bracketed(self.reach.near)}:{self.ports.mqtt}"
            made["BROKER_GRANTS"] = f"nats-file:{users}"
            if self.reach.listen in ANYWHERE:
                made["MQTT_DEVICE_URL"] = (
                    f"{scheme}://{_bracketed(urlsplit(self.public_url).hostname or self.reach.near)}:{self.ports.mqtt}"
                )
        return {**os.environ, **self.given, **made}

    @property
    def _starts_valkey(self) -> bool:
        return not self.given.get("REDIS_URL")

    @property
    def _starts_broker(self) -> bool:
        return not self.given.get("MQTT_URL")

    def __enter__(self) -> "Stack":
        self.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything in order of dependency; returns when all of it is ready, or leaves nothing behind."""
        check_installed()
        self._take_lock()
        try:
            self._check_given()
            self._check_ports()
            self._start_services()
            self.ports.remember(self.var)
        except BaseException:
            self.stop()
            raise
        self.ready = True
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop everything; safe to call again."""
        self._stopping.set()
        self.ready = False
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        self.supervisor.stop()
        if self._lock is not None:
            with contextlib.suppress(FileNotFoundError):
                (self.var / "stack.json").unlink()
            self._lock.close()
            self._lock = None

    def kill(self, name: str) -> None:
        """Kill one child as a crash would; the supervisor starts it again."""
        os.kill(self.pids[name], signal.SIGKILL)

    def _start_services(self) -> None:
        run = self.supervisor
        if self._starts_valkey:
            secret = embedded.password(self.var / "valkey" / "password")
            run.start(embedded.valkey(self.var / "valkey", self.ports.redis, secret))
            # What the last run noted about itself would pass for this run's.
            embedded.ask(self.ports.redis, secret, "SELECT 1", "FLUSHDB")
        env = self.env
        self.first_words = run.run("bootstrap", [sys.executable, "-m", "django", "bootstrap"], env)
        if self._starts_broker:
            run.start(self._broker())
        run.start(*application_services(env, self.url, self.reach.listen, self.ports.web, self.reach.tls))
        facts = {
            "url": self.url,
            "public_url": self.public_url,
            "mqtt_url": env["MQTT_URL"],
            "pid": os.getpid(),
        }
        embedded.private(self.var / "stack.json", json.dumps(facts, indent=2) + "\n")

    def _broker(self) -> Service:
        folder = self.var / "broker"
        return embedded.nats(
            folder, self.reach.listen, self.ports.mqtt, folder / "users.conf", self.reach.tls
        )

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            self.supervisor.watch_once()

    def _check_given(self) -> None:
        for name, usual in GIVEN_SERVICES.items():
            if not self.given.get(name):
                continue
            place = urlsplit(self.given[name])
            where = f"{place.hostname}:{place.port or usual}"
            self.say(f"{name} names {where}, so none is started here")
            if not ports.listens(place.port or usual, place.hostname or ""):
                raise StartError(f"{name} names {where}, where nothing answers; start that, or unset {name}")

    def _check_ports(self) -> None:
        wanted: list[tuple[str, str, int]] = [("web", "--port", self.ports.web)]
        if self._starts_broker:
            wanted.append(("MQTT", "--mqtt-port", self.ports.mqtt))
        if self._starts_valkey:
            wanted.append(("Valkey", "--redis-port", self.ports.redis))
        for what, option, port in wanted:
            address = "127.0.0.1" if what == "Valkey" else self.reach.listen
            if not ports.is_free(port, address):
                by = ports.holder(port)
                who = f" by {by}" if by else ""
                raise StartError(f"port {port} ({what}) is taken{who}; choose another with {option}")

    def _take_lock(self) -> None:
        try:
            self.var.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.var / "stack.lock").open("a+")
        except OSError as error:
            raise StartError(
                f"{self.var} cannot be used: {error.strerror}; choose another with --var"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise StartError(_occupied(self.var, lock.read().strip())) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock


def _occupied(var: Path, pid: str) -> str:
    who = f" (pid {pid})" if pid else ""
    return f"a Tinyfleet stack runs on {var} already{who}; stop it first, or choose another folder with --var"


def check_installed(needed: Mapping[str, str] = NEEDED) -> None:
    """Raise StartError, naming the extras, when a module that children need is not installed."""
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        extras = ",".join(dict.fromkeys(needed[module] for module in missing))
        verb = "is" if len(missing) == 1 else "are"
        names = ", ".join(missing)
        raise StartError(f"{names} {verb} not installed; install with: pip install 'tinyfleet[{extras}]'")


def running_stack(var: Path) -> dict[str, Any] | None:
    """What `stack.json` says about the stack that runs on `var`, or None."""
    try:
        found: dict[str, Any] = json.loads((var / "stack.json").read_text())
        os.kill(int(found["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
