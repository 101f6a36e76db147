"""Whether each part of the server answers; for people, load balancers and the command line."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router

from fleet.config.alive import age_seconds
from fleet.config.celery import COMPRESSION, CONTROL

OLD_AFTER_SECONDS = 30
NECESSARY = ("database", "redis")

router = Router(tags=["health"])


@dataclass(frozen=True)
class Finding:
    """One part: whether it works, and a sentence for people."""

    ok: bool
    detail: str


def report() -> dict[str, Any]:
    """All findings, and one word: `ok`, `degraded` (pages work), or `down`."""
    findings = {name: _tried(look) for name, look in LOOKS.items()}
    if all(finding.ok for finding in findings.values()):
        status = "ok"
    else:
        status = "degraded" if all(findings[name].ok for name in NECESSARY) else "down"
    checks = {name: {"ok": finding.ok, "detail": finding.detail} for name, finding in findings.items()}
    return {"status": status, "version": settings.TINYFLEET_VERSION, "checks": checks}


@router.get("/health", auth=None, response={200: dict[str, Any], 503: dict[str, Any]})
def health(request: HttpRequest) -> tuple[int, dict[str, Any]]:
    """Whether database, Redis, broker, workers, beat and gateway are at work; 503 when pages cannot work."""
    found = report()
    return (503 if found["status"] == "down" else 200), found


def healthz(request: HttpRequest) -> HttpResponse:
    """The same, where load balancers look for it."""
    status, found = health(request)
    return JsonResponse(found, status=status)


def _tried(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - whatever a driver raises, the page that reports it stays up
        return Finding(False, f"does not answer ({type(error).__name__})")


def _database() -> Finding:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return Finding(True, connection.vendor)


def _redis() -> Finding:
    cache.get("health")
    return Finding(True, "answers")


def _broker() -> Finding:
    with socket.create_connection((settings.MQTT_HOST, settings.MQTT_PORT), timeout=1):
        return Finding(True, "takes connections")


def _seen(name: str) -> Callable[[], Finding]:
    def look() -> Finding:
        age = age_seconds(name)
        if age is None:
            return Finding(False, "has not been seen")
        return Finding(age <= OLD_AFTER_SECONDS, f"seen {age:.0f} s ago")

    return look


LOOKS: dict[str, Callable[[], Finding]] = {
    "database": _database,
    "redis": _redis,
    "broker": _broker,
    "beat": _seen("beat"),
    f"worker {CONTROL}": _seen(f"worker:{CONTROL}"),
    f"worker {COMPRESSION}": _seen(f"worker:{COMPRESSION}"),
    "gateway": _seen("gateway"),
}
