"""A lease on a row: one worker at a time works on it, says so every few seconds, and loses it by being silent.

The row has `lease_token`, `lease_until` and `attempt`. A claim is one compare-and-set UPDATE. Every write of the
holder filters on its token, so a worker that was paused while another took over changes nothing.
"""

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connection, models
from django.db.models import F, Q, QuerySet
from django.utils import timezone

LEASE = timedelta(seconds=15)
RENEW_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Lease:
    """The right to work on one row, for as long as it is renewed."""

    def __init__(self, rows: QuerySet[Any], token: uuid.UUID) -> None:
        self.token = token
        self._rows = rows
        self._over = threading.Event()
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether another worker may be at it by now; then nothing may be written any more."""
        return self._lost.is_set()

    def held(self) -> QuerySet[Any]:
        """The row, as long as it is ours; an UPDATE on it that changes 0 rows came too late."""
        return self._rows.filter(lease_token=self.token)

    def write(self, **changes: Any) -> bool:
        """Change the row if it is still ours; False, and the lease counts as lost, otherwise."""
        if self.held().update(**changes):
            return True
        self._lost.set()
        return False

    def finish(self, **changes: Any) -> bool:
        """The last write: change the row and give the lease up, if it is still ours."""
        return self.write(lease_token=None, lease_until=None, **changes)

    def renew(self) -> bool:
        """Keep the row for another `LEASE`."""
        return self.write(lease_until=timezone.now() + LEASE)

    def _keep(self) -> None:
        try:
            while not self._over.wait(RENEW_SECONDS) and not self.lost:
                self._renew_patiently()
        finally:
            connection.close()

    def _renew_patiently(self) -> None:
        # A database that is away for a moment is no reason to throw the work away; being too late is.
        try:
            self.renew()
        except DatabaseError as error:
            logger.warning("a lease could not be renewed and is tried again: %s", error)


def claim(rows: QuerySet[Any], **changes: Any) -> Lease | None:
    """Take the lease on the one row in `rows` if nobody holds it, counting the attempt."""
    now, token = timezone.now(), uuid.uuid4()
    taken = rows.filter(free(now)).update(
        lease_token=token, lease_until=now + LEASE, attempt=F("attempt") + 1, **changes
    )
    if not taken:
        return None
    model: type[models.Model] = rows.model
    pk = rows.model._default_manager.filter(lease_token=token).values_list("pk", flat=True).get()
    return Lease(model._default_manager.filter(pk=pk), token)


def free(now: Any) -> Q:
    """Rows that no living worker holds."""
    return Q(lease_until=None) | Q(lease_until__lt=now)


@contextmanager
def renewed(lease: Lease) -> Iterator[Lease]:
    """Renew the lease from a thread until the block ends."""
    thread = threading.Thread(target=lease._keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease._over.set()
        thread.join()
