"""How the parts without a port of their own (workers, beat, the gateway) show that they are at work.

Each writes the time under the cache key `alive:<name>` every few seconds. The gateway may not import this project
package, so it writes `alive:gateway` itself.
"""

import logging
import time
from typing import Any

import redis
from celery.signals import beat_init, before_task_publish, heartbeat_sent
from django.core.cache import cache

PREFIX = "alive:"
KEPT_SECONDS = 24 * 3600
NOTED_EVERY_SECONDS = 2

logger = logging.getLogger(__name__)
_noted: dict[str, float] = {}


def note(name: str) -> None:
    """Write down that `name` is at work now; a silent Redis is somebody else's alarm."""
    now = time.monotonic()
    if now - _noted.get(name, float("-inf")) < NOTED_EVERY_SECONDS:
        return
    _noted[name] = now
    try:
        cache.set(PREFIX + name, time.time(), KEPT_SECONDS)
    except redis.RedisError as error:
        logger.warning("%s cannot say that it is at work, because Redis does not answer: %s", name, error)


def age_seconds(name: str) -> float | None:
    """How long ago `name` was last seen at work; None when it never was."""
    at = cache.get(PREFIX + name)
    return None if at is None else max(0.0, time.time() - float(at))


def _worker_lives(sender: Any, **kwargs: Any) -> None:
    # Workers are named <queue>@<host>, see `fleet.cli.up` and docker-compose.yml.
    note("worker:" + str(sender.eventer.hostname).partition("@")[0])


def _beat_starts(**kwargs: Any) -> None:
    note("beat")
    before_task_publish.connect(_beat_lives)


def _beat_lives(**kwargs: Any) -> None:
    note("beat")


heartbeat_sent.connect(_worker_lives)
beat_init.connect(_beat_starts)
