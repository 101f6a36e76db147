"""The children that are this project: web server, two workers, beat and gateway."""

import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fleet.cli.supervisor import Service

CELERY = (sys.executable, "-m", "celery", "-A", "fleet.config.celery")
READY_SECONDS = 90.0


def application_services(
    env: Mapping[str, str], url: str, listen: str, port: int, tls: tuple[Path, Path] | None
) -> list[Service]:
    """Everything that needs database, Redis and broker; they start side by side."""
    health = Health(url)
    return [
        Service("web", _uvicorn(listen, port, tls), health.answers, env, ready_seconds=READY_SECONDS),
        _worker("control", "warning", health, env),
        _worker("compression", "info", health, env),
        Service(
            "beat", [*CELERY, "beat", "-l", "warning"], health.says("beat"), env, ready_seconds=READY_SECONDS
        ),
        Service(
            "gateway",
            [sys.executable, "-m", "django", "gateway"],
            health.says("gateway"),
            env,
            ready_seconds=READY_SECONDS,
        ),
    ]


def _uvicorn(listen: str, port: int, tls: tuple[Path, Path] | None) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "fleet.config.asgi:application"]
    # Live pages hold their connection open for as long as somebody looks at them; they must not delay a stop.
    command += ["--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "2"]
    if tls is not None:
        command += ["--ssl-certfile", str(tls[0]), "--ssl-keyfile", str(tls[1])]
    return [*command, "--host", listen, "--port", str(port)]


def _worker(queue: str, level: str, health: "Health", env: Mapping[str, str]) -> Service:
    command = [*CELERY, "worker", "-n", f"{queue}@%h", "-Q", queue, "-c", "1", "-l", level]
    command += ["--without-gossip", "--without-mingle"]
    return Service(
        f"worker-{queue}",
        command,
        health.says(f"worker {queue}"),
        # One thread a task: the job measures one candidate at a time, and the other core answers pages and devices.
        {"OMP_NUM_THREADS": "1", **env},
        # A cold shutdown gives unfinished tasks back to the queue instead of waiting for a job of an hour.
        stop_signal=signal.SIGQUIT,
        ready_seconds=READY_SECONDS,
    )


class Health:
    """What the server's own health page says."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/healthz"

    def report(self) -> dict[str, Any]:
        """The report, empty while nothing answers."""
        try:
            with urllib.request.urlopen(self.url, timeout=5, context=_unchecked(self.url)) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            return self._parsed(error.read())
        except (OSError, ValueError):
            return {}
        return found

    def answers(self) -> bool:
        """Whether the web server serves pages."""
        return self.report().get("status") in ("ok", "degraded")

    def says(self, part: str) -> Callable[[], bool]:
        """A probe for one part, such as `beat`."""

        def ready() -> bool:
            return bool(self.report().get("checks", {}).get(part, {}).get("ok"))

        return ready

    def _parsed(self, body: bytes) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(body)
        except ValueError:
            return {}
        return found


def _unchecked(url: str) -> Any:
    # The probe goes to this machine's own server, whose certificate names the address that others use.
    if not url.startswith("https"):
        return None
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
