"""Queues, limits and the schedule: what keeps ticks from piling up and jobs from running twice."""

import pytest

from fleet.config.celery import BEAT_SCHEDULE, COMPRESSION, CONTROL, app


@pytest.fixture(scope="module", autouse=True)
def _tasks() -> None:
    app.loader.import_default_modules()


def queue_of(task: str) -> str:
    route = app.amqp.router.route({}, task)
    return str(route["queue"].name)


def test_every_scheduled_task_exists_and_expires_before_it_is_due_again():
    for entry in BEAT_SCHEDULE.values():
        assert entry["task"] in app.tasks
        assert entry["options"] == {"queue": CONTROL, "expires": entry["schedule"]}


def test_long_tasks_have_a_queue_of_their_own():
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    long = {name for name in ours if queue_of(name) == COMPRESSION}
    assert long == {"compression_jobs.run", "registry.check_version", "registry.check_dataset"}
    assert {queue_of(name) for name in ours - long} == {CONTROL}


def test_no_running_task_is_handed_to_a_second_worker():
    hard = [app.conf.task_time_limit]
    hard += [app.tasks[name].time_limit or 0 for name in app.conf.task_annotations]
    assert app.conf.broker_transport_options["visibility_timeout"] > max(hard)
    for name in app.conf.task_annotations:
        assert app.tasks[name].soft_time_limit < app.tasks[name].time_limit


def test_a_killed_workers_task_runs_again():
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
