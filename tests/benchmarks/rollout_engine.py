"""Planning and ticks of a rollout to thousands of devices: seconds, and queries, against a fleet a tenth as large.

Uses the database of `DATABASE_URL`, in a scheme of test tables that is made for the run and dropped after it.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many devices."""
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--ticks", type=int, default=5)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line for a tenth of the fleet and one for all of it."""
    import os

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.config.settings")
    django.setup()
    with database() as vendor:
        for devices in (max(1, options.devices // 10), options.devices):
            yield {"database": vendor, **measure(devices, options.ticks)}


@contextmanager
def database() -> Iterator[str]:
    """An empty database of its own."""
    from django.db import connection
    from django.test.utils import setup_test_environment, teardown_test_environment

    setup_test_environment(debug=False)
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield connection.vendor
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)
        teardown_test_environment()


def measure(devices: int, ticks: int) -> dict[str, Any]:
    """One rollout in one wave: offered as fast as it goes, answered by half of the devices, and then by all."""
    from fleet.rollouts import engine, preparation
    from fleet.rollouts.models import Delivery

    rollout = laid_in(devices)
    order = preparation.Order(rollout.version, rollout.group, rollout.app, rules(rollout))
    began = time.perf_counter()
    plan = preparation.draw_up(order)
    planning = time.perf_counter() - began
    began = time.perf_counter()
    engine.begin(rollout, NOW)
    laying_out = time.perf_counter() - began
    offering = [timed_tick(tick) for tick in range(1, ticks + 1)]
    offered = Delivery.objects.filter(rollout=rollout).exclude(offered_at=None).count()
    looking = [answered_tick(rollout, share, ticks + n) for n, share in enumerate((0.5, 0.6, 0.7), 1)]
    ending = [answered_tick(rollout, 1.0, ticks + 4)]
    while rollout.state == "running":
        ending.append(timed_tick(ticks + 4 + len(ending)))
        rollout.refresh_from_db()
    ended = rollout.state
    rollout.deliveries.update(state="cancelled")
    rollout.delete()
    return {
        "n_devices": plan.devices,
        "planning_s": round(planning, 3),
        "laying_out_s": round(laying_out, 3),
        **worst("tick", offering),
        **worst("look", looking),
        **worst("judge", ending),
        "offered": offered,
        "ended": ended,
        "n": ticks,
    }


@dataclass(frozen=True)
class Tick:
    """What one tick took: by the clock, of this process's CPU, and statements."""

    seconds: float
    cpu_seconds: float
    queries: int


def worst(name: str, ticks: list[Tick]) -> dict[str, Any]:
    """The slowest of some ticks, and the most statements that one sent."""
    return {
        f"{name}_s": round(max(tick.seconds for tick in ticks), 3),
        f"{name}_cpu_s": round(max(tick.cpu_seconds for tick in ticks), 3),
        f"{name}_queries": max(tick.queries for tick in ticks),
    }


def timed_tick(second: int) -> Tick:
    """One tick."""
    from fleet.rollouts import engine

    with counted() as found:
        began, cpu = time.perf_counter(), time.process_time()
        engine.tick(NOW + timedelta(seconds=second))
        return Tick(time.perf_counter() - began, time.process_time() - cpu, len(found))


def answered_tick(rollout: Any, share: float, second: int) -> Tick:
    """The same, once a share of all devices has kept the version, with what their trials saw."""
    answer(rollout, share, NOW + timedelta(seconds=second))
    return timed_tick(second)


def answer(rollout: Any, share: float, now: datetime) -> None:
    """The first so many of the plan have gone all the way."""
    steps = ("offered", "downloading", "verifying", "testing", "trial", "succeeded")
    past = [{"state": state, "at": now.isoformat(), "reason": ""} for state in steps]
    rollout.deliveries.filter(position__lte=share * rollout.deliveries.count()).update(
        state="succeeded",
        offered_at=NOW,
        changed_at=now,
        finished_at=now,
        history=past,
        evidence={"n": 50, "errors": 0, "labelled": 0, "correct": 0, "enough": True},
    )


def laid_in(devices: int) -> Any:
    """A scheduled rollout to so many devices of two targets."""
    from fleet.inventory.models import Device
    from fleet.rollouts.models import Rollout
    from tests.factories import ArtifactFactory, GroupFactory, TargetFactory, VersionFactory

    targets = [TargetFactory(slug=slug) for slug in ("raspberry-pi-4", "raspberry-pi-5")]
    group = GroupFactory(slug=f"all-{devices}")
    version = VersionFactory()
    for target in targets:
        ArtifactFactory(version=version, target=target)
    rows = [
        Device(name=f"d{devices}-{n}", target=targets[n % 2], online=True, labels={"site": f"s{n % 50}"})
        for n in range(devices)
    ]
    Device.objects.bulk_create(rows, batch_size=1000)
    group.members.set(rows)
    given = {"waves": ["100%"], "paced": False, "soak_seconds": 0}
    return Rollout.objects.create(version=version, group=group, strategy=given, state="scheduled")


def rules(rollout: Any) -> Any:
    """Its strategy."""
    from fleet.rollouts import strategy

    return strategy.read(rollout.strategy)


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that were sent meanwhile."""
    from django.db import connection

    sent: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        sent.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield sent
