"""Tasks of the rollouts."""

from celery import shared_task
from django.utils import timezone

from fleet.rollouts import engine


@shared_task(name="rollouts.tick")
def tick() -> int:
    """One step of every rollout that is under way."""
    return engine.tick(timezone.now())
