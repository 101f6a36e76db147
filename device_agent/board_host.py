"""The agent in MicroPython: its clock, its configuration, and the one loop it shares with the application."""
# mypy: disable-error-code="type-arg"

import gc
import os
import time

from device_agent.core import ports
from device_agent.core.agent import Agent
from device_agent.core.agent import NoModel as NoModel  # for applications
from device_agent.core.storage import FileStorage
from device_agent.transports.umqtt import UmqttTransport

# Before this day the clock was never set: a board without a battery starts in 1970, 2000 or 2021.
CLOCK_TRUSTED_FROM = 1735689600  # 2025-01-01
YEAR_2000 = 946684800  # seconds from 1970 to where some ports begin to count
COLLECT_MS = 1000
# Collected this often, a small heap stays in one piece, and the next buffer of 4 KB finds room.
COLLECT_BYTES = 16384
BROKEN_WAIT_MS = 1000


class BoardClock(ports.Clock):
    """The port's counters, which wrap, added up; and its clock once it was set."""

    def __init__(self) -> None:
        self._ms = self._us = 0
        self._last_ms = time.ticks_ms()  # type: ignore[attr-defined]
        self._last_us = time.ticks_us()  # type: ignore[attr-defined]
        self._epoch = YEAR_2000 if time.gmtime(0)[0] == 2000 else 0

    def ticks_ms(self) -> int:
        """Milliseconds since this object was made."""
        now = time.ticks_ms()  # type: ignore[attr-defined]
        self._ms += max(0, time.ticks_diff(now, self._last_ms))  # type: ignore[attr-defined]
        self._last_ms = now
        return self._ms

    def ticks_us(self) -> int:
        """Microseconds; only what lies less than nine minutes apart can be compared."""
        now = time.ticks_us()  # type: ignore[attr-defined]
        self._us += max(0, time.ticks_diff(now, self._last_us))  # type: ignore[attr-defined]
        self._last_us = now
        return self._us

    def utc(self) -> "int | None":
        """Seconds since 1970, or None while the clock was not set."""
        now = int(time.time()) + self._epoch
        return now if now >= CLOCK_TRUSTED_FROM else None


def _provisioning(folder: str) -> dict:
    from device_agent.provisioning import provisioning

    return provisioning(folder)


def open_agent(folder: str, runtime: ports.Runtime, log=print, restart=None) -> Agent:  # type: ignore[no-untyped-def]
    """The agent of the device provisioned in `folder`, which also keeps its state; raises NotProvisioned or OSError."""
    config, clock = _provisioning(folder), BoardClock()
    transport = UmqttTransport(config, clock)
    return Agent(config, clock, transport, runtime, FileStorage(folder), log, restart, os.urandom)


def run(agent: Agent, work=None, going=lambda: True) -> None:  # type: ignore[no-untyped-def]
    """Drive the agent, and with it the application, while `going()` is true.

    `work(agent, now_ms)` does one small thing (`agent.predict`, `agent.label`) and returns the milliseconds until it wants
    to be called again. What it raises is logged, and it is called again a second later.
    """
    gc.threshold(COLLECT_BYTES)  # type: ignore[attr-defined]
    clock, log = agent.clock, agent.device.log
    work_ms = collect_ms = 0
    said = ""
    while going():
        now_ms = clock.ticks_ms()
        wait_ms = agent.step(now_ms)
        if work is not None and now_ms >= work_ms:
            try:
                work_ms = now_ms + work(agent, now_ms)
            except Exception as error:  # noqa: BLE001  an application must not take the agent down
                work_ms = now_ms + BROKEN_WAIT_MS
                said = _said(log, said, "the application failed: " + str(error))
        if wait_ms <= 0:
            continue
        if now_ms >= collect_ms:
            gc.collect()  # here nobody waits for it
            collect_ms = now_ms + COLLECT_MS
        agent.device.transport.wait(min(wait_ms, max(0, work_ms - now_ms)) if work is not None else wait_ms)


def _said(log, before: str, text: str) -> str:  # type: ignore[no-untyped-def]
    if text != before:
        log(text)
    return text
