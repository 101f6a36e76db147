"""From the broker into rows: messages are read, applied in batches, and acknowledged after commit.

A message that breaks the protocol is dropped with a line in the log, or it would come again for ever. When the database does
not answer, nothing is acknowledged and the same batch is tried again.
"""

import logging
import math
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError, transaction

from device_agent.core import protocol
from fleet.gateway.broker import Arrival
from fleet.inventory import sightings
from fleet.inventory.models import Device
from fleet.registry import offers
from fleet.rollouts import consents, outcomes
from fleet.telemetry import ingest

BATCH_MESSAGES = 200
BATCH_SECONDS = 0.2
MAX_PAYLOAD = {"presence": 512, "hello": 16384, "status": 8192, "report": protocol.REPORT_MAX_BYTES}
MAX_INT = 2**53
MAX_DEPTH = 8

# Errors that no message can cause: the database is away, broken or not migrated yet, and the batch has to wait.
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, ProgrammingError)

PARSERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "presence": protocol.parse_presence,
    "hello": protocol.parse_hello,
    "status": protocol.parse_status,
    "report": protocol.parse_report,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Received:
    """One checked message of one device."""

    device: str
    kind: str
    message: dict[str, Any]
    retained: bool


def take_batch(arrivals: "queue.Queue[Arrival]", wait_s: float) -> list[Arrival]:
    """Up to 200 messages, or what comes within 200 ms after the first; empty when none comes at all."""
    try:
        batch = [arrivals.get(timeout=wait_s)]
    except queue.Empty:
        return []
    closes_at = time.monotonic() + BATCH_SECONDS
    while len(batch) < BATCH_MESSAGES and (left := closes_at - time.monotonic()) > 0:
        try:
            batch.append(arrivals.get(timeout=left))
        except queue.Empty:
            break
    return batch


def store(batch: Sequence[Arrival], now: datetime) -> None:
    """Apply a batch in one transaction; raises one of DATABASE_AWAY when nothing could be stored."""
    received = [found for arrival in batch if (found := read(arrival)) is not None]
    try:
        with transaction.atomic():
            apply(received, now)
    except DATABASE_AWAY:
        raise
    except Exception:
        # One message among many is bad in a way that nobody foresaw: find it, so that the others count.
        logger.exception("a batch of %d messages failed; trying each by itself", len(received))
        for one in received:
            _apply_alone(one, now)


def _apply_alone(one: Received, now: datetime) -> None:
    try:
        with transaction.atomic():
            apply([one], now)
    except DATABASE_AWAY:
        raise
    except Exception:
        logger.exception("a %s of %s is dropped, because it cannot be applied", one.kind, one.device)


def read(arrival: Arrival) -> Received | None:
    """The checked message, or None for what is dropped."""
    if not arrival.payload:
        return None  # a retained message that somebody withdrew
    try:
        device, kind, _ = protocol.parse_device_topic(arrival.topic)
        if kind not in PARSERS:
            raise protocol.ProtocolError(f"nobody publishes {kind} to the server")
        if len(arrival.payload) > MAX_PAYLOAD[kind]:
            raise protocol.ProtocolError(f"a {kind} has at most {MAX_PAYLOAD[kind]} bytes")
        message = PARSERS[kind](arrival.payload)
        check_values(message)
        if kind == "report":
            ingest.check(message)
        if kind == "status" and not _is_epoch(message.get("epoch")):
            raise protocol.ProtocolError("epoch is missing")
    except (protocol.ProtocolError, RecursionError) as error:
        logger.warning("a message on %.120s is dropped: %s", arrival.topic, error)
        return None
    return Received(device, kind, message, arrival.retained)


def check_values(value: Any, depth: int = 0) -> None:
    """Raise ProtocolError for values that JSON allows but rows cannot hold."""
    if depth > MAX_DEPTH:
        raise protocol.ProtocolError(f"more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for name, inner in value.items():
            check_values(name, depth + 1)
            check_values(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_values(inner, depth + 1)
    elif isinstance(value, str):
        if "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise protocol.ProtocolError("a text holds what no text can")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise protocol.ProtocolError("a number is not finite")
    elif isinstance(value, int) and abs(value) > MAX_INT:
        raise protocol.ProtocolError("a number is too large")


def apply(received: Sequence[Received], now: datetime) -> None:
    """Apply checked messages in order of arrival; reports, which need no order, go together at the end."""
    devices = _devices(received)
    reports = []
    for one in received:
        device = devices.get(one.device)
        if device is None or device.state != Device.State.ACTIVE:
            logger.info("a %s of %s is dropped: no such device is active", one.kind, one.device)
        elif one.kind == "report":
            reports.append(ingest.Arrival(device, one.message, now))
        else:
            _apply_one(device, one, now)
    ingest.store(reports)


def _devices(received: Sequence[Received]) -> dict[str, Device]:
    # Locked in one order: two gateways with messages of the same devices wait for each other, not for ever.
    names = {one.device for one in received}
    found = Device.objects.select_for_update().filter(name__in=names).order_by("pk")
    return {device.name: device for device in found}


def _apply_one(device: Device, one: Received, now: datetime) -> None:
    message = one.message
    if one.kind == "presence":
        sightings.apply_presence(device, message, now, one.retained)
    elif one.kind == "hello":
        if sightings.apply_hello(device, message, now):
            outcomes.apply_hello(device, message, now)
    else:
        sightings.seen([device.pk], now)
        _apply_status(device, message, now)


def _apply_status(device: Device, message: dict[str, Any], now: datetime) -> None:
    kind = message["kind"]
    if kind == protocol.STATUS_ANSWER:
        if sightings.apply_answer(device, message, now):
            consents.heard(device, message, now)
    elif kind == protocol.STATUS_MISSING:
        if not offers.ask_again(message["blob"], message["chunk_bytes"], message["chunks"], now):
            logger.warning("%s misses chunks of %.16s, which nobody offers", device, message["blob"])
    elif sightings.apply_delivery_status(device, message, now):
        outcomes.apply_status(device, message, now)


def _is_epoch(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
