"""What the health page says when parts are away, against a real Valkey."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.cache import cache

from fleet.cli import embedded
from fleet.cli.ports import free_port
from fleet.config import connections
from tests.services import running

pytestmark = pytest.mark.django_db


@pytest.fixture
def nobody(settings) -> None:
    settings.CACHES = {"default": connections.cache(f"redis://127.0.0.1:{free_port()}/0")}
    settings.MQTT_PORT = free_port()


@pytest.fixture
def valkey(settings, tmp_path: Path) -> Iterator[None]:
    port = free_port()
    service = embedded.valkey(tmp_path, port, "secret")
    with running(list(service.command), port):
        settings.CACHES = {"default": connections.cache(f"redis://:secret@127.0.0.1:{port}/0")}
        settings.MQTT_PORT = free_port()
        yield


@pytest.mark.usefixtures("nobody")
def test_without_redis_it_is_down_and_says_which_part(client):
    answer = client.get("/api/v1/health")
    assert answer.status_code == 503
    found = answer.json()
    assert found["status"] == "down"
    assert found["checks"]["database"]["ok"]
    assert not found["checks"]["redis"]["ok"]
    assert not found["checks"]["broker"]["ok"]


@pytest.mark.usefixtures("valkey")
def test_parts_count_as_alive_only_while_they_say_so(client):
    assert client.get("/healthz").json()["status"] == "degraded"
    for part in ("beat", "worker:control", "worker:compression"):
        cache.set(f"alive:{part}", time.time())
    cache.set("alive:gateway", time.time() - 3600)
    answer = client.get("/healthz")
    assert answer.status_code == 200
    checks = answer.json()["checks"]
    assert checks["beat"]["ok"]
    assert checks["worker control"]["ok"]
    assert not checks["gateway"]["ok"]
    assert "3600 s ago" in checks["gateway"]["detail"]
