"""Celery's side of the registry: checks of uploads, and the sweep after them."""

from celery import shared_task

from fleet.registry import checking, sweeping
from fleet.registry.queueing import COMPRESSION, CONTROL

CHECK_SOFT_SECONDS, CHECK_HARD_SECONDS = 600, 660


@shared_task(
    name="registry.check_version",
    queue=COMPRESSION,
    soft_time_limit=CHECK_SOFT_SECONDS,
    time_limit=CHECK_HARD_SECONDS,
)
def check_version(pk: int) -> None:
    """Check an uploaded model."""
    checking.check_version(pk)


@shared_task(
    name="registry.check_dataset",
    queue=COMPRESSION,
    soft_time_limit=CHECK_SOFT_SECONDS,
    time_limit=CHECK_HARD_SECONDS,
)
def check_dataset(pk: int) -> None:
    """Check an uploaded dataset."""
    checking.check_dataset(pk)


@shared_task(name="registry.sweep", queue=CONTROL)
def sweep() -> None:
    """Take up lost checks, and delete what nobody wants."""
    sweeping.sweep()
