"""Signed intents: the only place where manifests are written. Called by the tick alone, inside its transactions."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, FilteredRelation, Max, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from device_agent.core import protocol
from fleet import events
from fleet.inventory.models import Device, DeviceApp
from fleet.registry import downloads, offers, signing
from fleet.registry.models import Artifact
from fleet.rollouts import strategy, windows
from fleet.rollouts.models import Delivery, Intent, Rollout

LIFE = timedelta(hours=24)
# Blobs outlive the manifest that names them by this much, for a download that began late.
BLOB_GRACE = timedelta(hours=6)
RENEWED_AT_ONCE = 200
# A manifest has 2 KiB; whoever missed more rotations than this hears of the others in steps.
KEYS_SENT = 3

# A device that refused for these reasons refuses again; nobody is helped by a new signature.
_NOT_AGAIN = (
    Delivery.State.REJECTED,
    Delivery.State.CANCELLED,
    Delivery.State.SUPERSEDED,
    Delivery.State.SKIPPED,
)

Key = tuple[int, str]


def issue(deliveries: Sequence[Delivery], now: datetime) -> list[Intent]:
    """Sign and keep one new current intent a delivery; a delivery without artifact withdraws what was desired."""
    if not deliveries:
        return []
    sequences = _next_sequences(deliveries)
    fresh = [_intent(delivery, sequences[_key(delivery)], now) for delivery in deliveries]
    _retire_current(fresh)
    made = Intent.objects.bulk_create(fresh)
    _offer_blobs(deliveries, now)
    events.wake_outbox()
    return made


def renew(now: datetime) -> int:
    """Sign again, for the same delivery, what a device has still to accept; returns how many."""
    keys = _in_their_window(_to_renew(now), now)[:RENEWED_AT_ONCE]
    due = Intent.objects.filter(pk__in=keys).select_related(*(f"delivery__{path}" for path in RELATED))
    issue([intent.delivery for intent in due.order_by("pk")], now)
    return len(keys)


def manifest(delivery: Delivery, sequence: int, now: datetime, until: datetime) -> bytes:
    """The signed manifest of one delivery, as sent; it may be followed `until` then."""
    artifact = delivery.artifact
    if artifact is None:
        return b""
    known = _known_keys(delivery.device)
    body = protocol.encode({**_fields(delivery, artifact, sequence, now, until), "keys": _rotation(known)})
    signature, key_id = signing.sign(body, known)
    return protocol.seal_manifest(signature, key_id, body)


def _fields(
    delivery: Delivery, artifact: Artifact, sequence: int, now: datetime, until: datetime
) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "issued_at": int(now.timestamp()),
        "expires_at": int(until.timestamp()),
        "device": delivery.device.name,
        "app": delivery.rollout.app,
        "delivery": delivery.wire_id,
        "target": artifact.target.slug,
        "model": artifact.version.model.slug,
        "version": artifact.version.number,
        "artifact": {"sha256": artifact.sha256, "bytes": artifact.bytes, "format": artifact.format},
        "transport": _transport(artifact, delivery.device.name, now),
        "self_test": _blob(
            artifact, artifact.self_test_sha256, artifact.self_test_bytes, artifact.self_test_index_sha256
        ),
        "signature_spec": {
            "blob": _blob(
                artifact, artifact.signature_sha256, artifact.signature_bytes, artifact.signature_index_sha256
            )
        },
        "trial": _trial(delivery, artifact),
    }


def _expiry(delivery: Delivery, now: datetime) -> datetime:
    """An installation is begun while its window is open, also by a device that was away when it was offered."""
    end = now + LIFE
    window = strategy.read(delivery.rollout.strategy).window
    if window is None or delivery.kind == Delivery.Kind.ROLL_BACK:
        return end
    found = windows.opening(window, delivery.zone, now)
    return min(end, found.end) if found and found.holds(now) else end


def _transport(artifact: Artifact, device: str, now: datetime) -> dict[str, Any]:
    part = _blob(
        artifact, artifact.transport_sha256, artifact.transport_bytes, artifact.transport_index_sha256
    )
    part["coding"] = artifact.transport_coding
    if offers.goes_by_https(artifact):
        part["url"] = downloads.blob_url(artifact.transport_sha256, device, now + LIFE)
    return part


def _blob(artifact: Artifact, sha256: str, size: int, index: str) -> dict[str, Any]:
    return {"sha256": sha256, "bytes": size, "chunk_bytes": artifact.chunk_bytes, "index": index}


def _trial(delivery: Delivery, artifact: Artifact) -> dict[str, Any] | None:
    """The rules of the device's trial; none on the way back, where the artifact has proved itself before."""
    if delivery.kind == Delivery.Kind.ROLL_BACK:
        return None
    rules = strategy.read(delivery.rollout.strategy).trial.model_dump()
    if rules["accuracy_floor"] is None:
        rules["accuracy_floor"] = artifact.accuracy_floor
    if not rules["shadow"]:
        del rules["shadow"]
    return {name: value for name, value in rules.items() if value is not None}


def _known_keys(device: Device) -> list[str]:
    """Ids of the keys that the device trusts, as its last hello says; one that slept for long knows only old ones."""
    said = device.hello.get("keys")
    return [key_id for key_id in said if isinstance(key_id, str)] if isinstance(said, list) else []


def _rotation(known: list[str]) -> list[dict[str, str]]:
    """All keys a device shall trust from now on; none when it trusts exactly those already."""
    keys = [{"id": key_id, "key": key} for key_id, key in signing.public_keys()[:KEYS_SENT]]
    return [] if [key["id"] for key in keys] == known else keys


def _key(delivery: Delivery) -> Key:
    return delivery.device_id, delivery.rollout.app


def _next_sequences(deliveries: Sequence[Delivery]) -> dict[Key, int]:
    """One above everything the database or the device itself knows; the database may be an older copy."""
    devices = {delivery.device_id for delivery in deliveries}
    # Locked in one order, so that two ticks at once can neither reuse a sequence nor wait for each other.
    list(Device.objects.select_for_update().filter(pk__in=devices).order_by("pk").values_list("pk"))
    known: dict[Key, int] = {}
    rows = [
        *Intent.objects.filter(device__in=devices).values_list("device_id", "app").annotate(Max("sequence")),
        *DeviceApp.objects.filter(device__in=devices).values_list("device_id", "app", "last_sequence"),
    ]
    for device, app, sequence in rows:
        known[(device, app)] = max(known.get((device, app), 0), sequence)
    return {_key(delivery): known.get(_key(delivery), 0) + 1 for delivery in deliveries}


def _intent(delivery: Delivery, sequence: int, now: datetime) -> Intent:
    until = _expiry(delivery, now)
    payload = manifest(delivery, sequence, now, until)
    return Intent(
        device_id=delivery.device_id,
        app=delivery.rollout.app,
        sequence=sequence,
        delivery=delivery,
        payload=payload,
        digest=hashlib.sha256(payload).hexdigest(),
        issued_at=now,
        expires_at=until,
    )


def _retire_current(fresh: Iterable[Intent]) -> None:
    by_app: dict[str, list[int]] = {}
    for intent in fresh:
        by_app.setdefault(intent.app, []).append(intent.device_id)
    for app, devices in by_app.items():
        Intent.objects.filter(device__in=devices, app=app, current=True).update(current=False, due=False)


def _offer_blobs(deliveries: Iterable[Delivery], now: datetime) -> None:
    artifacts = {delivery.artifact_id: delivery.artifact for delivery in deliveries}
    for artifact in artifacts.values():
        if artifact is not None:
            offers.offer(artifact, artifact.chunk_bytes, now + LIFE + BLOB_GRACE)


def _to_renew(now: datetime) -> QuerySet[Intent]:
    """Current intents past half their life that still wait for their device, or that it has overtaken."""
    said = FilteredRelation("device__apps", condition=Q(device__apps__app=F("app")))
    current = Intent.objects.filter(current=True, device__state=Device.State.ACTIVE).annotate(said=said)
    current = current.annotate(
        accepted=Coalesce(F("said__last_sequence"), 0),
        accepted_digest=Coalesce(F("said__manifest_sha256"), Value("")),
    )
    waiting = ~Q(delivery__state__in=Delivery.ENDS) | Q(accepted__lt=F("sequence"))
    old = (Q(issued_at__lte=now - LIFE / 2) | Q(expires_at__lte=now)) & waiting
    ahead = Q(accepted__gt=F("sequence"))
    other = Q(accepted=F("sequence")) & ~Q(accepted_digest="") & ~Q(accepted_digest=F("digest"))
    found = current.filter(old | ahead | other).exclude(payload=b"").exclude(delivery__state__in=_NOT_AGAIN)
    return found.filter(delivery__artifact__recalled_at=None).order_by("pk")


def _in_their_window(found: QuerySet[Intent], now: datetime) -> list[int]:
    """Keys in order, without those of installations that have to wait for their next window."""
    rows = list(found.values_list("pk", "delivery__kind", "delivery__rollout", "delivery__zone"))
    places = {(rollout, zone) for _, kind, rollout, zone in rows if kind == Delivery.Kind.INSTALL}
    rules = Rollout.objects.filter(pk__in={pk for pk, _ in places}).values_list("pk", "strategy")
    opening = {pk: strategy.read(raw).window for pk, raw in rules}
    closed = {place for place in places if not windows.is_open(opening[place[0]], place[1], now)}
    return [
        pk
        for pk, kind, rollout, zone in rows
        if kind == Delivery.Kind.ROLL_BACK or (rollout, zone) not in closed
    ]


# What a manifest is made of, fetched with the delivery.
RELATED = ("device__target", "rollout__group", "artifact__target", "artifact__version__model")
