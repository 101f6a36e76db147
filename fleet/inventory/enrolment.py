"""How a device joins: an operator makes a token, the device trades it for its provisioning file.

A name that is taken is given out again (after a lost state folder) only to a device of the same target while the old one
is offline; it then gets a new secret, and the old one stops working.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F

from device_agent.core import protocol
from fleet import events
from fleet.accounts.roles import Caller, Role, require
from fleet.errors import Conflict, NotFound, Refused
from fleet.inventory.credentials import device_credentials
from fleet.inventory.labels import check_labels
from fleet.inventory.models import BrokerGrant, Device, DeviceGroup, EnrolmentToken
from fleet.registry import signing
from fleet.registry.models import Target

MAX_TOKEN_SECONDS = 90 * 24 * 3600
MAX_USES = 100_000
TOKEN_PREFIX = "tfe_"


@dataclass(frozen=True)
class TokenOrder:
    """What a new enrolment token shall allow."""

    target: str
    groups: Sequence[str] = ()
    labels: Mapping[str, str] | None = None
    uses: int = 1
    expires_in_s: int = 3600
    heartbeat_s: int = 30
    report_s: int = 30


def create_token(user: Caller, order: TokenOrder, now: datetime) -> tuple[EnrolmentToken, str]:
    """A new token and its text, which is shown only now."""
    require(user, Role.ADMIN)
    target = _target(order.target)
    _check_order(order)
    groups = _groups(order.groups)
    text = TOKEN_PREFIX + secrets.token_urlsafe(24)
    with transaction.atomic():
        token = EnrolmentToken.objects.create(
            digest=_digest(text),
            prefix=text[:8],
            target=target,
            labels=check_labels(order.labels or {}),
            uses_left=order.uses,
            expires_at=now + timedelta(seconds=order.expires_in_s),
            heartbeat_s=order.heartbeat_s,
            report_s=order.report_s,
            created_by_id=user.pk,
        )
        token.groups.set(groups)
    return token, text


def enrol(text: str, name: str, now: datetime) -> dict[str, Any]:
    """The provisioning of the device that shows a valid token; the token loses one use."""
    token = _valid_token(text, now)
    if not protocol.is_id(name):
        raise Refused(
            f"'{name[:80]}' is no device name",
            remedy="Use letters, digits, hyphen and underscore, at most 64.",
        )
    _refuse_export_only(token.target)
    with transaction.atomic():
        _take_one_use(token)
        device = Device.objects.select_for_update().filter(name=name).first()
        device = _join_again(device, token, now) if device else _join(name, token)
        device.groups.add(*token.groups.all())
        grant = _grant(device)
        events.publish("devices", f"device:{name}", "overview")
        events.wake_outbox()
    return provisioning(device, grant.generation, token.report_s)


def provisioning(device: Device, generation: int, report_s: int) -> dict[str, Any]:
    """The file a device keeps: who it is, where the broker is, whose signatures it trusts."""
    mine = device_credentials(device.name, generation)
    return {
        "v": protocol.VERSION,
        "device": device.name,
        "target": device.target.slug,
        "runtime": device.target.runtime,
        "apps": ["main"],
        "chunk_bytes": device.target.chunk_bytes,
        "heartbeat_s": device.heartbeat_s,
        "report_s": report_s,
        "broker": {
            "host": settings.MQTT_DEVICE_HOST,
            "port": settings.MQTT_DEVICE_PORT,
            "tls": settings.MQTT_DEVICE_TLS,
            "ca": _certificate_authority(),
        },
        "client_id": mine.client_id,
        "username": mine.username,
        "password": mine.password,
        "keys": [{"id": key_id, "key": key} for key_id, key in signing.public_keys()],
        "server": settings.PUBLIC_URL,
    }


def _target(slug: str) -> Target:
    target = Target.objects.filter(slug=slug).first()
    if target is None:
        known = ", ".join(Target.objects.values_list("slug", flat=True)[:40])
        raise NotFound(f"there is no target '{slug}'", remedy=f"Known targets: {known}.")
    _refuse_export_only(target)
    return target


def _refuse_export_only(target: Target) -> None:
    if target.export_only:
        raise Refused(
            f"{target.slug} is export only: artifacts for {target.runtime} are compressed, measured and downloaded, "
            "but no device of it can be enrolled or rolled out to",
            remedy="Download the artifact and build it into your firmware, or use a target with another runtime.",
        )


def _check_order(order: TokenOrder) -> None:
    problems = [
        (not 1 <= order.uses <= MAX_USES, f"uses is {order.uses}; 1 to {MAX_USES} are possible"),
        (
            not 1 <= order.expires_in_s <= MAX_TOKEN_SECONDS,
            f"expires_in_s is {order.expires_in_s}; 1 to {MAX_TOKEN_SECONDS} are possible",
        ),
        (not 1 <= order.heartbeat_s <= 86400, f"heartbeat_s is {order.heartbeat_s}; 1 to 86400 are possible"),
        (not 1 <= order.report_s <= 86400, f"report_s is {order.report_s}; 1 to 86400 are possible"),
    ]
    found = [sentence for wrong, sentence in problems if wrong]
    if found:
        raise Refused(found[0], remedy="Correct it and ask again.", problems=found)


def _groups(slugs: Sequence[str]) -> list[DeviceGroup]:
    groups = list(DeviceGroup.objects.filter(slug__in=slugs))
    missing = sorted(set(slugs) - {group.slug for group in groups})
    if missing:
        raise NotFound(f"there is no group '{missing[0]}'", remedy="Create the group first.")
    ruled = [group.slug for group in groups if group.is_dynamic]
    if ruled:
        raise Refused(
            f"group '{ruled[0]}' has a label rule, so nobody joins it by hand",
            remedy="Give the token the labels that the rule asks for.",
        )
    return groups


def _valid_token(text: str, now: datetime) -> EnrolmentToken:
    token = EnrolmentToken.objects.select_related("target").filter(digest=_digest(text)).first()
    if token is None or token.expires_at <= now or token.uses_left == 0:
        raise Refused(
            "the enrolment token is unknown, used up or expired",
            remedy="Ask an operator of the fleet for a new one.",
        )
    return token


def _take_one_use(token: EnrolmentToken) -> None:
    taken = EnrolmentToken.objects.filter(pk=token.pk, uses_left__gt=0).update(uses_left=F("uses_left") - 1)
    if not taken:
        raise Refused(
            "the enrolment token was used up a moment ago",
            remedy="Ask an operator of the fleet for a new one.",
        )


def _join(name: str, token: EnrolmentToken) -> Device:
    return Device.objects.create(
        name=name, target=token.target, labels=token.labels, heartbeat_s=token.heartbeat_s
    )


def _join_again(device: Device, token: EnrolmentToken, now: datetime) -> Device:
    if device.state != Device.State.ACTIVE:
        raise Conflict(
            f"{device.name} is {device.state} and cannot enrol",
            remedy="Reinstate it on its page, or enrol under another name.",
        )
    if device.target_id != token.target_id:
        raise Conflict(
            f"{device.name} is enrolled as {device.target.slug}, and this token is for {token.target.slug}",
            remedy="Use a token for its target, or another name.",
        )
    if device.online and not device.is_overdue(now):
        raise Conflict(
            f"a device named {device.name} is online", remedy="Stop it first, or enrol under another name."
        )
    device.labels = {**device.labels, **token.labels}
    device.heartbeat_s = token.heartbeat_s
    device.save(update_fields=["labels", "heartbeat_s"])
    return device


def _grant(device: Device) -> BrokerGrant:
    grant, created = BrokerGrant.objects.get_or_create(device=device)
    if not created:
        BrokerGrant.objects.filter(pk=grant.pk).update(generation=F("generation") + 1, allowed=True, due=True)
        grant.refresh_from_db()
    return grant


def _certificate_authority() -> str | None:
    """The PEM text, so that a device needs no file of ours."""
    return Path(settings.MQTT_CA_FILE).read_text() if settings.MQTT_CA_FILE else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
