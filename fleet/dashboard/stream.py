"""One stream of server-sent events that carries only the NAMES of what changed; pages fetch the card again.

A page names what it shows (`?names=job:12 devices`). Nothing else is sent, so a stream can leak nothing, and a lost
message costs one slow poll. A stream ends by itself after a while (the browser connects again) and at once when the
server is told to stop, because uvicorn waits for open answers.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import redis.asyncio
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from redis.exceptions import RedisError

from fleet.events import CHANGES

MAX_NAMES = 64
MAX_NAME_CHARS = 80
LIFETIME_S = 600
KEEP_ALIVE_S = 15
RETRY_MS = 3000

logger = logging.getLogger(__name__)


class Closing:
    """Whether this process is stopping; set from the signal handlers that were there before, never instead of them."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._listen(number)

    def _listen(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)

        def heard(received: int, frame: FrameType | None) -> None:
            self.loop.call_soon_threadsafe(self.event.set)
            if callable(before):
                before(received, frame)

        signal.signal(number, heard)


_closing: list[Closing] = []


def closing() -> Closing:
    """The one `Closing` of the running loop."""
    if not _closing or _closing[0].loop is not asyncio.get_running_loop():
        _closing[:] = [Closing()]
    return _closing[0]


async def stream(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """The stream itself; people who are not logged in get none."""
    user = await request.auser()
    if not user.is_authenticated:
        return HttpResponse("log in first", status=401)
    answer = StreamingHttpResponse(
        events(wanted(request.GET.get("names", ""))), content_type="text/event-stream"
    )
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"
    return answer


def wanted(text: str) -> frozenset[str]:
    """The names a page asks for, bounded."""
    return frozenset(name for name in text.split()[:MAX_NAMES] if len(name) <= MAX_NAME_CHARS)


async def events(names: frozenset[str]) -> AsyncIterator[str]:
    """The lines of one stream: `changed` with names, a comment as a sign of life, `unavailable` when Redis is away."""
    stop, loop = closing().event, asyncio.get_running_loop()
    end = loop.time() + LIFETIME_S
    yield f"retry: {RETRY_MS}\n\n"
    client = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    try:
        await pubsub.subscribe(CHANGES)
        await pubsub.get_message(ignore_subscribe_messages=False, timeout=1)  # the confirmation
        while not stop.is_set() and loop.time() < end:
            heard = await _next(pubsub, stop)
            changed = sorted(names & set(heard.split())) if heard else []
            if changed:
                yield f"event: changed\ndata: {' '.join(changed)}\n\n"
            elif heard is None:
                yield ": still here\n\n"
    except (RedisError, OSError) as error:
        logger.warning("live pages poll, because Redis does not answer: %s", error)
        yield "event: unavailable\ndata: redis\n\n"
    finally:
        await _close(pubsub, client)


async def _next(pubsub: Any, stop: asyncio.Event) -> str | None:
    """The next message, or None after a quiet while or when the process stops."""
    message = asyncio.ensure_future(pubsub.get_message(timeout=KEEP_ALIVE_S))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({message, stopped}, return_when=asyncio.FIRST_COMPLETED)
        found = message.result() if message.done() else None
        return found["data"].decode() if found else None
    finally:
        message.cancel()
        stopped.cancel()


async def _close(pubsub: Any, client: Any) -> None:
    try:
        await pubsub.aclose()
        await client.aclose()
    except (RedisError, OSError) as error:
        logger.debug("closing the stream's connection failed: %s", error)
