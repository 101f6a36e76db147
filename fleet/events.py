"""'This changed': names of changed things for live pages, and wake-up calls for the gateway.

Only names travel, never data: a page that hears a name fetches the card again, with its own permissions.
Losing a message is harmless (pages poll slowly, the outbox is read every second), so a silent Redis is no error.
"""

import logging
import threading
import time

import redis
from django.conf import settings
from django.db import transaction

CHANGES = "tinyfleet:changes"
OUTBOX = "tinyfleet:outbox"
# A Redis that hangs must not cost every transaction its time-out.
SILENCE_SECONDS = 5.0

logger = logging.getLogger(__name__)


def publish(*names: str) -> None:
    """Say after commit that the named things changed (`job:12`, `devices`, ...); one message a transaction."""
    _after_commit(CHANGES, names)


def wake_outbox() -> None:
    """Wake the gateway after commit, because a row of the outbox is due."""
    _after_commit(OUTBOX, ("due",))


def connection() -> "redis.Redis":
    """A connection to the settings' Redis that gives up quickly."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=2)


class _Speaker(threading.local):
    """What one thread has still to say, and its connection."""

    def __init__(self) -> None:
        self.waiting: dict[str, set[str]] = {}
        self.redis: redis.Redis | None = None
        self.silent_until = 0.0

    def say(self, channel: str) -> None:
        """Send everything that waits for a channel; names from a transaction that failed go along, harmlessly."""
        names = self.waiting.pop(channel, None)
        if not names or time.monotonic() < self.silent_until:
            return
        self.redis = self.redis or connection()
        try:
            self.redis.publish(channel, " ".join(sorted(names)))
        except redis.RedisError as error:
            self.silent_until = time.monotonic() + SILENCE_SECONDS
            logger.warning("nobody hears of changes, because Redis does not answer: %s", error)


_speaker = _Speaker()


def _after_commit(channel: str, names: tuple[str, ...]) -> None:
    if names:
        _speaker.waiting.setdefault(channel, set()).update(names)
        transaction.on_commit(lambda: _speaker.say(channel))
