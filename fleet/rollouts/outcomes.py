"""What devices say about their deliveries, applied to rows; the gateway calls these inside its transaction."""

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from device_agent.core import protocol
from fleet import events
from fleet.inventory.models import Command, Device
from fleet.rollouts import offering, shadows
from fleet.rollouts.deliveries import move, remark
from fleet.rollouts.models import Delivery, Intent

Message = dict[str, Any]

MAX_REASON = 500
EVIDENCE = ("n", "errors", "missed", "labelled", "correct", "e_value", "enough", *shadows.COUNTS)
SEQUENCE_REFUSED = "sequence"
_ASK_FOR = timedelta(minutes=10)


def apply_status(device: Device, message: Message, now: datetime) -> bool:
    """Move the delivery a status names; False when it is none of ours, over, or the state is not news."""
    delivery = _delivery(device, message.get("delivery"))
    if delivery is None:
        return False
    offering.heard(delivery, message["state"], now)
    if delivery.is_over:
        return _confirm_late(delivery, message, now)
    if message["state"] == "rejected" and message.get("code") == SEQUENCE_REFUSED:
        return _ask_for_hello(device, now)
    reason, fields = _text(message.get("reason")), _facts(delivery, message)
    if delivery.state == message["state"]:
        return remark(delivery, now, reason, **fields)
    return move(delivery, message["state"], now, reason, **fields)


def apply_hello(device: Device, message: Message, now: datetime) -> None:
    """Heal lost statuses from what a hello repeats, and send again the intents that it shows were missed."""
    for app, state in message["apps"].items():
        at_work, outcome = state.get("delivery"), state.get("outcome")
        if isinstance(outcome, dict) and outcome.get("state") in protocol.ENDS:
            apply_status(device, outcome, now)
        if isinstance(at_work, dict) and at_work.get("state") in protocol.PROGRESS:
            apply_status(device, {**at_work, "delivery": at_work.get("id")}, now)
        _send_missed(device, app, state["sequence"])


def _send_missed(device: Device, app: str, sequence: int) -> None:
    missed = Intent.objects.filter(device=device, app=app, current=True, sequence__gt=sequence)
    if missed.update(due=True):
        events.wake_outbox()


def _delivery(device: Device, text: object) -> Delivery | None:
    try:
        pk = uuid.UUID(str(text))
    except ValueError:
        return None
    named = Q(ticket=pk) | Q(pk=pk, ticket=None)
    return Delivery.objects.filter(named, device=device).select_related("device").first()


def _confirm_late(delivery: Delivery, message: Message, now: datetime) -> bool:
    """A device that was away while its way back timed out has gone back all the same."""
    if delivery.kind != Delivery.Kind.ROLL_BACK or message["state"] != Delivery.State.SUCCEEDED:
        return False
    return move(delivery, "confirm", now, "it was away, and went back when it returned")


def _facts(delivery: Delivery, message: Message) -> dict[str, Any]:
    """Columns that a status fills beside the state."""
    fields: dict[str, Any] = {}
    attempt, evidence = message.get("attempt"), message.get("evidence")
    if isinstance(attempt, int) and 0 < attempt < 10_000:
        fields["attempt"] = attempt
    if isinstance(evidence, dict):
        known = {name: evidence[name] for name in EVIDENCE if isinstance(evidence.get(name), int | float)}
        fields["evidence"] = {**delivery.evidence, **known}
    return fields or {"attempt": delivery.attempt}


def _ask_for_hello(device: Device, now: datetime) -> bool:
    """The device has followed a later sequence than the database knows: its hello says which, and the tick signs above it."""
    waiting = Command.objects.filter(device=device, name="hello", expires_at__gt=now)
    if waiting.filter(state__in=(Command.State.PENDING, Command.State.SENT)).exists():
        return False
    Command.objects.create(id=uuid.uuid4(), device=device, name="hello", expires_at=now + _ASK_FOR)
    events.wake_outbox()
    return False


def _text(value: object) -> str:
    return value[:MAX_REASON] if isinstance(value, str) else ""
