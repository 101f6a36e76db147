"""Cuts request bodies that are too large, before Django spools them to disk.

Django reads a whole body into a temporary file before a view is asked, so a limit inside a view comes too late.
Bytes are counted as they arrive, because a chunked request announces no length and an announced one may lie.
"""

import asyncio
import html
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fleet.errors import TooLarge

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

DRAIN_SECONDS = 10.0
MEBIBYTE = 1024 * 1024
# For a browser: Django, which draws all other pages, was not asked.
PAGE = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><meta name="color-scheme"
content="light dark"><title>Too large</title><h1>Too large</h1><p>{problem}.</p><p>{remedy}</p><p><a href="{back}">Back</a></p>"""


class BodyTooLargeError(Exception):
    """Raised into Django's reading of a body that grew past the limit."""


class BodyLimit:
    """An ASGI application that answers 413 in words instead of handing on a body over `limit` bytes."""

    def __init__(self, application: Application, limit: int) -> None:
        self.application = application
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return await self.application(scope, receive, send)
        if _announced(scope) > self.limit:
            return await self._refuse(scope, receive, send)
        try:
            await self.application(scope, self._counted(receive), send)
        except BodyTooLargeError:
            await self._refuse(scope, receive, send)
        return None

    def _counted(self, receive: Receive) -> Receive:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limit:
                raise BodyTooLargeError
            return message

        return counted

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind, body = self._answer(scope)
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": TooLarge.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if _header(scope, b"expect") is None:
            await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _answer(self, scope: Scope) -> tuple[bytes, bytes]:
        error = TooLarge(
            f"the request is larger than the {self.limit / MEBIBYTE:,.1f} MiB this server takes",
            remedy="Send a smaller file, or have the server's UPLOAD_MAX_BYTES raised.",
        )
        if b"text/html" not in (_header(scope, b"accept") or b""):
            return b"application/json", json.dumps(error.as_dict()).encode()
        page = PAGE.format(problem=error.message, remedy=error.remedy, back=html.escape(scope["path"]))
        return b"text/html; charset=utf-8", page.encode()


async def _drain(receive: Receive) -> None:
    # Closing while the client still writes resets the connection, and the client never reads why. So what is on its
    # way is thrown away for a while; a client that goes on for longer is cut off.
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def _lifespan(receive: Receive, send: Send) -> None:
    # Django does not know lifespan events; answering them keeps uvicorn from logging a failure at every start.
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _announced(scope: Scope) -> int:
    value = _header(scope, b"content-length")
    return int(value) if value is not None and value.isdigit() else 0


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
