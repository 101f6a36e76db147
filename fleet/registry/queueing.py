"""Hands work to Celery by name after commit; a queue that is away is no error, because sweeps hand it over again."""

import logging
from typing import Any

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

CONTROL, COMPRESSION = "control", "compression"

logger = logging.getLogger(__name__)


def send(task: str, *args: Any, queue: str = COMPRESSION) -> None:
    """Put a task into its queue once the current transaction is committed."""
    transaction.on_commit(lambda: send_now(task, *args, queue=queue))


def send_now(task: str, *args: Any, queue: str = COMPRESSION) -> None:
    """Put a task into its queue, whatever the current transaction does."""
    try:
        current_app.send_task(task, args=args, queue=queue)
    except (OperationalError, OSError) as error:
        logger.warning(
            "%s%r waits for the next sweep, because the queue does not answer: %s", task, args, error
        )
