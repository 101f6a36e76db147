"""What devices say about themselves, applied to rows: the server believes the device (design, section 5).

The gateway calls these inside its transaction. Every rule is safe against repeated, late and reordered messages:
an unknown epoch starts afresh, a replaced one never counts again, and an older session changes nothing.
"""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q

from device_agent.core import protocol
from fleet import events
from fleet.inventory.models import Command, Device, DeviceApp, InstalledSpan
from fleet.registry.models import Artifact

Message = dict[str, Any]

MAX_PAST_EPOCHS = 64
MAX_APPS = 16
UNANSWERED = (Command.State.PENDING, Command.State.SENT)


def hear(device: Device, epoch: int) -> bool:
    """Whether a message of this epoch counts; an unknown epoch replaces the present one."""
    if epoch == device.epoch:
        return True
    if epoch in device.past_epochs:
        return False
    if device.epoch is not None:
        device.past_epochs = [*device.past_epochs, device.epoch][-MAX_PAST_EPOCHS:]
    device.epoch, device.session, device.boot, device.booted_at = epoch, 0, 0, None
    device.save(update_fields=["epoch", "past_epochs", "session", "boot", "booted_at"])
    return True


def apply_presence(device: Device, message: Message, now: datetime, retained: bool) -> bool:
    """Take over online or offline; False when the message is out of date.

    A retained presence is what the broker remembers, not a sign of life.
    """
    if not hear(device, message["epoch"]) or message["session"] < device.session:
        return False
    device.session, device.online = message["session"], message["online"]
    if device.online and not retained:
        device.last_seen_at = now
    device.save(update_fields=["session", "online", "last_seen_at"])
    events.publish("devices", f"device:{device.name}", "overview")
    return True


def apply_hello(device: Device, message: Message, now: datetime) -> bool:
    """Take over everything a device says when it connects; False when the message is out of date."""
    if not hear(device, message["epoch"]) or message["session"] < device.session:
        return False
    device.session, device.boot = message["session"], message["boot"]
    device.online, device.hello, device.hello_at, device.last_seen_at = True, message, now, now
    device.booted_at = boot_time(message, now)
    device.save(update_fields=["session", "boot", "online", "hello", "hello_at", "last_seen_at", "booted_at"])
    for app, state in list(message["apps"].items())[:MAX_APPS]:
        _apply_app(device, app, state, now)
    ask_again(device, now)
    events.publish("devices", f"device:{device.name}", "overview")
    return True


def boot_time(message: Message, now: datetime) -> datetime:
    """UTC of the device's 0 ms: from its own clock when that is trusted and sensible, else from the arrival."""
    uptime = timedelta(milliseconds=min(message["uptime_ms"], 10 * 365 * 24 * 3600 * 1000))
    utc = message.get("utc")
    if message.get("clock") and isinstance(utc, (int, float)) and abs(utc - now.timestamp()) < 30 * 24 * 3600:
        return datetime.fromtimestamp(utc, tz=UTC) - uptime
    return now - uptime


def apply_delivery_status(device: Device, message: Message, now: datetime) -> bool:
    """Take over where a delivery stands on the device and, at its success, what is installed now."""
    if not hear(device, message["epoch"]):
        return False
    row, _ = DeviceApp.objects.get_or_create(device=device, app=message["app"])
    sequence = message.get("sequence")
    sequence = sequence if isinstance(sequence, int) else row.last_sequence
    if sequence < row.last_sequence:
        return True  # an end from the spool, older than what a later hello said
    row.last_sequence = sequence
    row.delivery, row.delivery_state = message["delivery"][:64], message["state"]
    if message["state"] in protocol.ENDS:
        row.outcome = {key: message.get(key) for key in ("delivery", "state", "reason")}
    is_installed = message["state"] == "succeeded" and message.get("shadow") is not True
    if is_installed and protocol.is_sha256(message.get("artifact")):
        _install(device, row, message, now)
    row.save()
    events.publish("devices", f"device:{device.name}")
    return True


def apply_answer(device: Device, message: Message, now: datetime) -> bool:
    """Keep a device's answer to a command of ours."""
    if not hear(device, message["epoch"]):
        return False
    try:
        command = uuid.UUID(message["command"])
    except ValueError:
        return False
    state = Command.State.ANSWERED if message["ok"] else Command.State.FAILED
    result = {"ok": message["ok"], "result": message.get("result")}
    changed = Command.objects.filter(pk=command, device=device, state__in=UNANSWERED).update(
        state=state, due=False, answered_at=now, result=result
    )
    events.publish(f"device:{device.name}")
    return bool(changed)


def seen(devices: Iterable[int], now: datetime) -> None:
    """Note a sign of life of many devices in one query."""
    Device.objects.filter(Q(last_seen_at=None) | Q(last_seen_at__lt=now), pk__in=set(devices)).update(
        last_seen_at=now
    )


def ask_again(device: Device, now: datetime) -> None:
    """Send unanswered commands again, because the device that missed them is back."""
    again = Command.objects.filter(device=device, state__in=UNANSWERED, expires_at__gt=now).update(due=True)
    if again:
        events.wake_outbox()


def _apply_app(device: Device, app: str, state: Message, now: datetime) -> None:
    row, _ = DeviceApp.objects.get_or_create(device=device, app=app)
    installed, at_work, outcome = (_object(state, key) for key in ("installed", "delivery", "outcome"))
    manifest = state.get("manifest")
    row.last_sequence = state["sequence"]
    row.manifest_sha256 = str(manifest) if protocol.is_sha256(manifest) else ""
    row.delivery = str(at_work.get("id") or "")[:64]
    row.delivery_state = str(at_work.get("state") or "")[:16]
    row.outcome = outcome
    _install(device, row, installed, now)
    row.save()


def _object(state: Message, key: str) -> Message:
    value = state.get(key)
    return value if isinstance(value, dict) else {}


def _install(device: Device, row: DeviceApp, installed: Message, now: datetime) -> None:
    """Close the span of what ran and open that of what runs; nothing when it is the same."""
    sha256 = installed.get("artifact", "")
    if row.artifact_sha256 == sha256:
        return
    InstalledSpan.objects.filter(device=device, app=row.app, until=None).update(until=now)
    row.artifact_sha256 = sha256
    row.artifact = _artifact(device, installed) if sha256 else None
    if sha256:
        InstalledSpan.objects.create(
            device=device, app=row.app, artifact=row.artifact, artifact_sha256=sha256, since=now
        )


def _artifact(device: Device, installed: Message) -> Artifact | None:
    """The artifact by its bytes; of several versions with the same bytes the one the device names, else the newest."""
    same = Artifact.objects.filter(sha256=installed["artifact"], target_id=device.target_id)
    model, version = installed.get("model"), installed.get("version")
    if isinstance(model, str) and isinstance(version, int):
        named = same.filter(version__model__slug=model, version__number=version).first()
        if named is not None:
            return named
    return same.first()
