"""The outbox of blobs: which the broker shall hold, in chunks of which size, and until when.

Rows are written in the transaction of their cause. The gateway publishes what is due and answers with
`mark_published` or `mark_withdrawn`; both change nothing when the row was asked for again in the meantime.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from device_agent.core.protocol import chunk_count
from fleet import events
from fleet.registry.models import Artifact, BlobOffer

# A device that comes back a little late still finds its chunks.
GRACE = timedelta(minutes=10)
# Beyond this many single chunks the whole blob is published again.
MOST_MISSING = 512


def blobs_of(artifact: Artifact) -> list[tuple[str, int]]:
    """SHA-256 and size of every blob that a device reads from the broker to install `artifact`."""
    digest = 32
    transport_chunks = chunk_count(artifact.transport_bytes, artifact.chunk_bytes)
    self_test_chunks = chunk_count(artifact.self_test_bytes, artifact.chunk_bytes)
    signature_chunks = chunk_count(artifact.signature_bytes, artifact.chunk_bytes)
    found = [
        (artifact.transport_index_sha256, digest * transport_chunks),
        (artifact.self_test_index_sha256, digest * self_test_chunks),
        (artifact.self_test_sha256, artifact.self_test_bytes),
        (artifact.signature_index_sha256, digest * signature_chunks),
        (artifact.signature_sha256, artifact.signature_bytes),
    ]
    if not goes_by_https(artifact):
        found.append((artifact.transport_sha256, artifact.transport_bytes))
    return found


def bytes_to_install(artifact: Artifact) -> int:
    """Everything that a device reads to install an artifact: itself as coded, its self-test, signature and indexes."""
    by_https = artifact.transport_bytes if goes_by_https(artifact) else 0
    return by_https + sum(size for _, size in blobs_of(artifact))


def goes_by_https(artifact: Artifact) -> bool:
    """Whether the artifact is too large for the broker, so that its manifest carries a URL."""
    return bool(artifact.transport_bytes > settings.BLOB_MQTT_MAX_BYTES)


def offer(artifact: Artifact, chunk_bytes: int, until: datetime) -> None:
    """Have the broker hold all that `artifact` needs until `until` at least; call it in the cause's transaction."""
    for sha256, size in blobs_of(artifact):
        _offer(sha256, size, chunk_bytes, until)
    events.wake_outbox()


def _offer(sha256: str, size: int, chunk_bytes: int, until: datetime) -> None:
    wanted, is_new = BlobOffer.objects.get_or_create(
        sha256=sha256, chunk_bytes=chunk_bytes, defaults={"bytes": size, "wanted_until": until}
    )
    if is_new:
        return
    rows = BlobOffer.objects.filter(pk=wanted.pk)
    # Only what left the broker, or is about to, has to be published again.
    leaving = ~Q(withdrawn_at=None) | Q(wanted_until__lte=timezone.now() - GRACE)
    rows.filter(leaving).update(due=True, missing=[], withdrawn_at=None, published_at=None)
    rows.filter(wanted_until__lt=until).update(wanted_until=until)


def ask_again(sha256: str, chunk_bytes: int, chunks: Iterable[int], now: datetime | None = None) -> bool:
    """A device misses chunks: have them published again; False when nobody is meant to have this blob now."""
    now = now or timezone.now()
    with transaction.atomic():
        rows = BlobOffer.objects.select_for_update().filter(sha256=sha256, chunk_bytes=chunk_bytes)
        wanted = rows.filter(withdrawn_at=None, wanted_until__gt=now - GRACE).first()
        if wanted is None:
            return False
        last = chunk_count(wanted.bytes, chunk_bytes)
        asked = {chunk for chunk in chunks if 0 <= chunk < last}
        if asked and not (wanted.due and not wanted.missing):
            _add_missing(wanted, asked)
            events.wake_outbox()
    return True


def _add_missing(wanted: BlobOffer, asked: set[int]) -> None:
    every = sorted(asked | set(wanted.missing))
    wanted.missing = every if len(every) <= MOST_MISSING else []
    wanted.due = True
    wanted.save(update_fields=["missing", "due"])


# --- for the gateway -----------------------------------------------------------------------------


def due(now: datetime) -> QuerySet[BlobOffer]:
    """Offers to publish now, oldest first."""
    return BlobOffer.objects.filter(due=True, withdrawn_at=None, wanted_until__gt=now - GRACE).order_by("pk")


def to_withdraw(now: datetime) -> QuerySet[BlobOffer]:
    """Offers that nobody wants any more and that the broker still holds."""
    return BlobOffer.objects.filter(withdrawn_at=None, wanted_until__lte=now - GRACE).order_by("pk")


def mark_published(offered: BlobOffer, now: datetime) -> bool:
    """Note that the broker has what `offered` said; False when more was asked for in the meantime."""
    rows = BlobOffer.objects.filter(pk=offered.pk, missing=offered.missing, withdrawn_at=None)
    return bool(rows.update(due=False, missing=[], published_at=now))


def mark_withdrawn(offered: BlobOffer, now: datetime) -> bool:
    """Note that the broker forgot the blob; False, and due again, when somebody wanted it in the meantime."""
    rows = BlobOffer.objects.filter(pk=offered.pk)
    if rows.filter(wanted_until__lte=now - GRACE).update(withdrawn_at=now, due=False, missing=[]):
        return True
    rows.update(due=True, missing=[], published_at=None)
    return False


def mark_all_due() -> int:
    """The broker lost its memory: everything that is wanted goes again; returns how many offers."""
    return BlobOffer.objects.filter(withdrawn_at=None).update(due=True, missing=[])


def forget_withdrawn(now: datetime) -> int:
    """Drop rows of offers that ended a while ago; returns how many."""
    return BlobOffer.objects.filter(withdrawn_at__lt=now - GRACE).delete()[0]
