"""What has to be done again and again: lost checks, ended offers, blobs that no row names."""

from datetime import datetime
from typing import NamedTuple

from django.utils import timezone

from fleet import events
from fleet.registry import blobs, checking, offers


class Swept(NamedTuple):
    """What one sweep found to do."""

    checks: int
    offers: int
    blobs: int
    staged: int


def sweep(now: datetime | None = None) -> Swept:
    """Hand lost checks over again, have ended offers withdrawn, delete blobs that no row names."""
    now = now or timezone.now()
    if offers.to_withdraw(now).exists():
        events.wake_outbox()
    return Swept(
        checks=checking.requeue_lost(now),
        offers=offers.forget_withdrawn(now),
        blobs=blobs.delete_unreferenced(stored_before=now - blobs.GRACE),
        staged=blobs.delete_old_staging(now),
    )
