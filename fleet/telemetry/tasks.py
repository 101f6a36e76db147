"""Tasks of telemetry."""

from celery import shared_task
from django.utils import timezone

from fleet.telemetry import services


@shared_task(name="telemetry.roll_up")
def roll_up() -> int:
    """Merge reports into minutes and hours, and review alerts."""
    return services.maintain(timezone.now())
