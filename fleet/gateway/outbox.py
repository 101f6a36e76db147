"""From rows to the broker: what is due is published, and marked when the broker has it.

A blob goes before the intent that names it. Rows change only under the condition that nobody asked for more meanwhile, so
losing a race means publishing twice, never not at all.
"""

import logging
from collections.abc import Iterator
from datetime import datetime

from django.db import transaction

from device_agent.core import protocol
from fleet.errors import NotFound
from fleet.gateway.broker import Broker
from fleet.inventory.models import BrokerGrant, Command, Device
from fleet.registry import blobs, offers
from fleet.registry.models import BlobOffer
from fleet.rollouts.models import Intent

OFFERS_AT_ONCE = 20
INTENTS_AT_ONCE = 200
COMMANDS_AT_ONCE = 200
CHUNKS_AT_ONCE = 64

Message = tuple[str, bytes, bool]

logger = logging.getLogger(__name__)


def publish_once(broker: Broker, now: datetime) -> int:
    """Publish some of what is due; returns how much, 0 when there was nothing or the broker is away."""
    work = _publish_commands(broker, now)
    work += _publish_offers(broker, now)
    work += _publish_intents(broker, now)
    return work + _withdraw_offers(broker, now)


@transaction.atomic
def mark_all_due() -> int:
    """The broker lost its memory: everything that is wanted goes again."""
    marked = offers.mark_all_due()
    marked += Intent.objects.filter(current=True).exclude(payload=b"").update(due=True)
    marked += Command.objects.filter(state=Command.State.SENT).update(due=True)
    return marked + BrokerGrant.objects.update(due=True)


def _publish_commands(broker: Broker, now: datetime) -> int:
    waiting = Command.objects.filter(due=True, expires_at__gt=now, device__state=Device.State.ACTIVE)
    batch = list(waiting.select_related("device").order_by("created_at")[:COMMANDS_AT_ONCE])
    if not batch or not broker.publish([_command(command) for command in batch]):
        return 0
    sent = Command.objects.filter(pk__in=[command.pk for command in batch])
    sent.update(due=False, published_at=now)
    # An answer may be here before we are.
    sent.filter(state=Command.State.PENDING).update(state=Command.State.SENT)
    return len(batch)


def _command(command: Command) -> Message:
    body = {
        "id": str(command.pk),
        "name": command.name,
        "app": command.app,
        "args": command.args,
        "expires_at": int(command.expires_at.timestamp()),
    }
    return protocol.device_topic(command.device.name, "command"), protocol.encode(body), False


def _publish_offers(broker: Broker, now: datetime) -> int:
    done = 0
    for offered in offers.due(now)[:OFFERS_AT_ONCE]:
        try:
            sent = _in_parts(broker, _chunks(offered))
        except (NotFound, OSError) as error:
            logger.error("blob %.16s cannot be published: %s", offered.sha256, error)
            continue
        if not sent:
            break
        offers.mark_published(offered, now)
        done += 1
    return done


def _chunks(offered: BlobOffer) -> Iterator[Message]:
    """The chunks that are asked for, or all of them; one is in memory at a time."""
    count = protocol.chunk_count(offered.bytes, offered.chunk_bytes)
    numbers = [n for n in offered.missing if n < count] or range(count)
    with blobs.open_blob(offered.sha256) as file:
        for number in numbers:
            file.seek(number * offered.chunk_bytes)
            topic = protocol.chunk_topic(offered.sha256, offered.chunk_bytes, number)
            yield topic, file.read(offered.chunk_bytes), True


def _in_parts(broker: Broker, messages: Iterator[Message]) -> bool:
    """Publish many messages a few at a time, so that a large blob never lies in memory whole."""
    part: list[Message] = []
    for message in messages:
        part.append(message)
        if len(part) == CHUNKS_AT_ONCE:
            if not broker.publish(part):
                return False
            part = []
    return not part or broker.publish(part)


def _publish_intents(broker: Broker, now: datetime) -> int:
    waiting = Intent.objects.filter(due=True, current=True).select_related("device", "delivery__artifact")
    not_there = _blobs_still_due()
    batch = [
        intent
        for intent in waiting.order_by("pk")[:INTENTS_AT_ONCE]
        if not (intent.payload and _names(intent) & not_there)
    ]
    messages = [
        (protocol.desired_topic(intent.device.name, intent.app), bytes(intent.payload), True)
        for intent in batch
    ]
    if not batch or not broker.publish(messages):
        return 0
    Intent.objects.filter(pk__in=[intent.pk for intent in batch]).update(due=False, published_at=now)
    return len(batch)


def _blobs_still_due() -> set[str]:
    """Blobs that the broker does not hold whole; single chunks that are asked for again keep no intent waiting."""
    due = BlobOffer.objects.filter(due=True, withdrawn_at=None)
    return {sha256 for sha256, missing in due.values_list("sha256", "missing") if not missing}


def _names(intent: Intent) -> set[str]:
    artifact = intent.delivery.artifact
    return {sha256 for sha256, _ in offers.blobs_of(artifact)} if artifact else set()


def _withdraw_offers(broker: Broker, now: datetime) -> int:
    done = 0
    for offered in offers.to_withdraw(now)[:OFFERS_AT_ONCE]:
        count = protocol.chunk_count(offered.bytes, offered.chunk_bytes)
        topics = (protocol.chunk_topic(offered.sha256, offered.chunk_bytes, n) for n in range(count))
        if not _in_parts(broker, ((topic, b"", True) for topic in topics)):
            break
        offers.mark_withdrawn(offered, now)
        done += 1
    return done
