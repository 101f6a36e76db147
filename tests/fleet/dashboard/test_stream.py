"""The stream carries names of what changed to people who are logged in, and ends when the server does."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.test import AsyncClient, Client

from fleet import events
from fleet.dashboard import stream
from tests.factories import UserFactory

SOON_S = 10


async def next_line(lines: AsyncIterator[str]) -> str:
    """The next thing that the stream says; it hangs in no test."""
    return await asyncio.wait_for(anext(lines), SOON_S)


async def say(*names: str) -> None:
    """Publish as the rest of the server does, until somebody hears it."""
    while not await asyncio.to_thread(events.connection().publish, events.CHANGES, " ".join(names)):
        await asyncio.sleep(0.01)


def test_only_people_who_are_logged_in_get_a_stream(db: None) -> None:
    assert Client().get("/stream/?names=devices").status_code == 401


@pytest.mark.usefixtures("valkey")
def test_a_page_hears_the_names_it_asked_for_and_nothing_else() -> None:
    async def listen() -> list[str]:
        lines = stream.events(stream.wanted("job:12 devices"))
        heard = [await next_line(lines)]
        waiting = asyncio.ensure_future(next_line(lines))
        await say("rollout:3", "job:1")
        await say("job:12", "overview", "devices")
        heard.append(await waiting)
        await lines.aclose()  # type: ignore[attr-defined]
        return heard

    assert asyncio.run(listen()) == ["retry: 3000\n\n", "event: changed\ndata: devices job:12\n\n"]


@pytest.mark.usefixtures("valkey")
def test_a_server_that_is_told_to_stop_ends_its_streams_and_still_stops() -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))

    async def listen() -> list[str]:
        lines = stream.events(frozenset({"devices"}))
        await next_line(lines)
        waiting = asyncio.ensure_future(next_line(lines))
        await say("devices")
        await waiting
        rest = asyncio.ensure_future(asyncio.wait_for(_all(lines), SOON_S))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        return await rest

    try:
        assert [line for line in asyncio.run(listen()) if not line.startswith(":")] == []
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM]


async def _all(lines: AsyncIterator[str]) -> list[str]:
    return [line async for line in lines]


def test_without_redis_the_page_is_told_to_poll() -> None:
    async def listen() -> list[str]:
        return await asyncio.wait_for(_all(stream.events(frozenset({"devices"}))), SOON_S)

    assert asyncio.run(listen())[-1] == "event: unavailable\ndata: redis\n\n"


@pytest.mark.django_db(transaction=True)
def test_the_answer_is_a_stream_that_nobody_keeps() -> None:
    user = UserFactory()

    async def ask() -> Any:
        client = AsyncClient()
        await client.aforce_login(user)
        return await client.get("/stream/?names=devices")

    answer = asyncio.run(ask())
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_page_cannot_ask_for_endlessly_many_names() -> None:
    assert len(stream.wanted(" ".join(f"job:{n}" for n in range(1000)))) == stream.MAX_NAMES
    assert stream.wanted("x" * 1000) == frozenset()
