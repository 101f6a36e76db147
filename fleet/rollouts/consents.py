"""Consent of the owners of devices that ask: now, tonight, or no; said here, or by a person at the device."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from device_agent.core import protocol
from fleet import events
from fleet.accounts.roles import Caller, Role, require
from fleet.errors import Conflict, NotFound, Refused
from fleet.inventory.models import Command, Device
from fleet.rollouts import deliveries, strategy, windows
from fleet.rollouts.conditions import A_DAY, A_MONTH
from fleet.rollouts.models import Delivery, Rollout, Wave

_UNANSWERED = (Command.State.PENDING, Command.State.SENT)
ANSWERS = (Delivery.Consent.NOW, Delivery.Consent.TONIGHT, Delivery.Consent.NO)


def answer(user: Caller, rollout: Rollout, device: str, said: str, now: datetime) -> Delivery:
    """Keep what the owner of a device said: it is asked at once, when its night begins (22:00), or not at all."""
    require(user, Role.OPERATOR)
    if said not in ANSWERS:
        raise Refused(f"'{said[:40]}' is no answer", remedy="Say now, tonight or no.")
    found = rollout.deliveries.filter(device__name=device, kind=Delivery.Kind.INSTALL)
    delivery = found.select_related("device").first()
    if delivery is None:
        raise NotFound(
            f"rollout {rollout.pk} has no delivery to '{device[:80]}'", remedy="Look at its devices."
        )
    if not delivery.consent:
        raise Conflict(
            f"{device} does not ask before it installs",
            remedy="Give it the label consent=ask before the start.",
        )
    with transaction.atomic():
        _apply(delivery, said, strategy.read(rollout.strategy), now)
    delivery.refresh_from_db()
    events.publish(f"rollout:{rollout.pk}", f"device:{device}")
    return delivery


def ask(rollout: Rollout, now: datetime) -> int:
    """Ask the person at each device whose turn has come; how many are asked anew."""
    asking = rollout.deliveries.filter(
        wave__state=Wave.State.RUNNING, state=Delivery.State.PENDING, consent=Delivery.Consent.WANTED
    )
    fresh = list(asking.filter(question=None).select_related("device", "artifact")[: deliveries.MOST_A_TICK])
    if not fresh:
        return 0
    with transaction.atomic():
        questions = [_question(rollout, delivery, now) for delivery in fresh]
        Command.objects.bulk_create(questions)
        for delivery, question in zip(fresh, questions, strict=True):
            delivery.question = question.pk
        Delivery.objects.bulk_update(fresh, ["question"], batch_size=500)
        events.wake_outbox()
    return len(fresh)


def take_back(now: datetime) -> int:
    """Tell devices that nobody waits for their answer any more; how many."""
    settled = Delivery.objects.filter(question__isnull=False).exclude(
        state=Delivery.State.PENDING, consent=Delivery.Consent.WANTED
    )
    over = list(settled.select_related("rollout", "device")[: deliveries.MOST_A_TICK])
    if not over:
        return 0
    with transaction.atomic():
        unanswered = Command.objects.filter(pk__in=[d.question for d in over], state__in=_UNANSWERED)
        heard_of = set(unanswered.filter(published_at__isnull=False).values_list("pk", flat=True))
        unanswered.update(state=Command.State.EXPIRED, due=False)
        backs = [
            Command(
                id=uuid.uuid4(),
                device=delivery.device,
                app=delivery.rollout.app,
                name=protocol.QUESTION,
                expires_at=now + A_DAY,
            )
            for delivery in over
            if delivery.question in heard_of
        ]
        Command.objects.bulk_create(backs)
        Delivery.objects.filter(pk__in=[delivery.pk for delivery in over]).update(question=None)
        events.wake_outbox()
    return len(over)


def heard(device: Device, message: Mapping[str, Any], now: datetime) -> bool:
    """Apply what a person at the device said; False when that was no answer of theirs, or comes too late."""
    result = message.get("result")
    said = result.get("consent") if isinstance(result, dict) else None
    if said not in ANSWERS:
        return False
    asked = Delivery.objects.filter(question=uuid.UUID(message["command"]), device=device)
    delivery = asked.select_related("device", "rollout").first()
    if delivery is None or delivery.consent != Delivery.Consent.WANTED:
        return False
    try:
        _apply(delivery, said, strategy.read(delivery.rollout.strategy), now)
    except Conflict:
        return False
    events.publish(f"rollout:{delivery.rollout_id}", f"device:{device.name}")
    return True


def _question(rollout: Rollout, delivery: Delivery, now: datetime) -> Command:
    args = {
        "delivery": str(delivery.pk),
        "model": rollout.version.model.slug,
        "version": rollout.version.number,
        "bytes": delivery.artifact.transport_bytes if delivery.artifact else 0,
    }
    return Command(
        id=uuid.uuid4(),
        device=delivery.device,
        app=rollout.app,
        name=protocol.QUESTION,
        args=args,
        expires_at=now + A_MONTH,
    )


def _apply(delivery: Delivery, said: str, rules: strategy.Strategy, now: datetime) -> None:
    default = rules.window.zone if rules.window else "UTC"
    later = windows.tonight(delivery.zone, default, now) if said == Delivery.Consent.TONIGHT else None
    waiting = Delivery.objects.filter(pk=delivery.pk, state=Delivery.State.PENDING)
    # A device that is at work already has its answer.
    if not waiting.update(consent=said, not_before=later) and delivery.consent != said:
        raise Conflict(
            f"{delivery.device} is {delivery.state.replace('_', ' ')} and no longer waits for consent",
            remedy="Roll it back if it shall not keep the version.",
        )
    if said == Delivery.Consent.NO:
        deliveries.move(delivery, "skip", now, "its owner said no")
