"""Tasks of the inventory."""

from celery import shared_task
from django.utils import timezone

from fleet.inventory import sweep


@shared_task(name="inventory.sweep_presence")
def sweep_presence() -> int:
    """Expire commands and tell live pages of devices that fell silent."""
    return sweep.sweep_once(timezone.now())
