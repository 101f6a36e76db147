"""'This changed': names of changed things for live pages, and wake-up calls for the gateway.

Only names travel, never data: a page that hears a name fetches the card again, with its own permissions.
Losing a message is harmless (pages poll slowly, the outbox is read every second), so a silent Redis is no error.
"""

import logging
from collections.abc import Callable

import redis
from django.conf import settings
from django.db import transaction

CHANGES = "tinyfleet:changes"
OUTBOX = "tinyfleet:outbox"

logger = logging.getLogger(__name__)


def publish(*names: str) -> None:
    """Say after commit that the named things changed (`job:12`, `devices`, ...)."""
    if names:
        transaction.on_commit(lambda: _send(CHANGES, " ".join(names)))


def wake_outbox() -> None:
    """Wake the gateway after commit, because a row of the outbox is due."""
    transaction.on_commit(lambda: _send(OUTBOX, "due"))


def connection() -> "redis.Redis":
    """A connection to the settings' Redis that gives up quickly."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=2)


_shared: list["redis.Redis"] = []


def _send(channel: str, text: str) -> None:
    if not _shared:
        _shared.append(connection())
    _quietly(lambda: _shared[0].publish(channel, text))


def _quietly(send: Callable[[], object]) -> None:
    try:
        send()
    except redis.RedisError as error:
        logger.warning("nobody hears of changes, because Redis does not answer: %s", error)
