"""Celery's side of compression: run one job, and take up lost ones."""

from celery import shared_task

from compression_jobs import runner, sweeping


@shared_task(name="compression_jobs.run")
def run(job_id: int) -> None:
    """Run a job, unless another worker is at it."""
    runner.run_job(job_id)


@shared_task(name="compression_jobs.sweep")
def sweep() -> None:
    """Queue jobs again whose worker was lost."""
    sweeping.sweep()
