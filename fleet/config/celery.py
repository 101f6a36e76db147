"""Celery's app: two queues, limits for both, and the beat schedule.

`control` runs the short, frequent steps (ticks, sweeps); `compression` runs uploads' checks and jobs, one at a time.
A task is acknowledged when it is done, so a killed worker's task runs again; the tasks themselves are idempotent.
"""

from typing import Any

from celery import Celery
from django.conf import settings

CONTROL, COMPRESSION = "control", "compression"

CONTROL_SOFT_SECONDS, CONTROL_HARD_SECONDS = 25, 30
CHECK_SOFT_SECONDS, CHECK_HARD_SECONDS = 600, 660
CHECK_LIMITS = {"soft_time_limit": CHECK_SOFT_SECONDS, "time_limit": CHECK_HARD_SECONDS}
JOB_GRACE_SECONDS = 60

JOB_TASK = "compression_jobs.run"
CHECK_TASKS = ("registry.check_version", "registry.check_dataset")

app = Celery("tinyfleet")


def every(seconds: int, task: str) -> dict[str, Any]:
    """A beat entry whose runs expire when the next one is due, so that they never pile up behind a slow one."""
    return {"task": task, "schedule": seconds, "options": {"queue": CONTROL, "expires": seconds}}


def limits(soft: int, hard: int) -> dict[str, int]:
    """A task's own time limits: after `soft` seconds it is asked to end, after `hard` it is killed."""
    return {"soft_time_limit": soft, "time_limit": hard}


BEAT_SCHEDULE = {
    "rollouts tick": every(1, "rollouts.tick"),
    "notices": every(5, "rollouts.notify"),
    "jobs sweep": every(5, "compression_jobs.sweep"),
    "presence sweep": every(10, "inventory.sweep_presence"),
    "telemetry roll-up": every(20, "telemetry.roll_up"),
    "registry sweep": every(60, "registry.sweep"),
}

app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    # Nobody waits for a result: what a task did stands in the database.
    task_ignore_result=True,
    task_default_queue=CONTROL,
    task_routes={"compression_jobs.run": {"queue": COMPRESSION}, "registry.check_*": {"queue": COMPRESSION}},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_soft_time_limit=CONTROL_SOFT_SECONDS,
    task_time_limit=CONTROL_HARD_SECONDS,
    task_annotations={
        JOB_TASK: limits(settings.JOB_MAX_SECONDS, settings.JOB_MAX_SECONDS + JOB_GRACE_SECONDS),
        **{task: limits(CHECK_SOFT_SECONDS, CHECK_HARD_SECONDS) for task in CHECK_TASKS},
    },
    broker_transport_options={
        # Above every hard limit: a task that still runs must not be handed to a second worker.
        "visibility_timeout": max(settings.JOB_MAX_SECONDS + JOB_GRACE_SECONDS, CHECK_HARD_SECONDS) + 600,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,
    },
    # A page that submits a job says so quickly when Redis is away, instead of hanging.
    task_publish_retry_policy={
        "max_retries": 2,
        "interval_start": 0.1,
        "interval_step": 0.2,
        "interval_max": 0.5,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_max_tasks_per_child=None,
    # A job outlives a restart of Redis; its message comes a second time, and the job's lease turns that one away.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    beat_schedule=BEAT_SCHEDULE,
    beat_scheduler="celery.beat:Scheduler",  # the schedule is code; a file of last runs would only go stale
    beat_max_loop_interval=1,
    timezone="UTC",
    enable_utc=True,
)
app.autodiscover_tasks()
app.set_default()
