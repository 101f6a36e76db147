"""Celery's side of the registry: checks of uploads, and the sweep after them."""

from celery import shared_task

from fleet.registry import checking, sweeping


@shared_task(name="registry.check_version")
def check_version(pk: int) -> None:
    """Check an uploaded model."""
    checking.check_version(pk)


@shared_task(name="registry.check_dataset")
def check_dataset(pk: int) -> None:
    """Check an uploaded dataset."""
    checking.check_dataset(pk)


@shared_task(name="registry.sweep")
def sweep() -> None:
    """Take up lost checks, and delete what nobody wants."""
    sweeping.sweep()
