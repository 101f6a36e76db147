"""Tasks of the rollouts."""

from celery import shared_task
from django.utils import timezone

from fleet.rollouts import engine, notices, observing


@shared_task(name="rollouts.tick")
def tick() -> int:
    """One step of every rollout that is under way, and a look at every experiment that is due."""
    now = timezone.now()
    return engine.tick(now) + observing.tick(now)


@shared_task(name="rollouts.notify")
def notify() -> int:
    """Tell people and programs what they asked to be told."""
    return notices.send_due(timezone.now())
