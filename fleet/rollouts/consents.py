"""Consent of the owners of devices that ask: now, tonight, or no."""

from datetime import datetime

from django.db import transaction

from fleet import events
from fleet.accounts.roles import Caller, Role, require
from fleet.errors import Conflict, NotFound, Refused
from fleet.rollouts import deliveries, strategy, windows
from fleet.rollouts.models import Delivery, Rollout

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
