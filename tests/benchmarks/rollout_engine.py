"""Planning and ticks of a rollout to thousands of devices: seconds, and queries, against a fleet a tenth as large.

Uses the database of `DATABASE_URL`, in a scheme of test tables that is made for the run and dropped after it.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    """One rollout in one wave, offered as fast as it goes."""
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
    seconds, queries = [], []
    for tick in range(1, ticks + 1):
        with counted() as found:
            began = time.perf_counter()
            engine.tick(NOW + timedelta(seconds=tick))
            seconds.append(time.perf_counter() - began)
        queries.append(len(found))
    offered = Delivery.objects.filter(rollout=rollout).exclude(offered_at=None).count()
    rollout.deliveries.update(state="cancelled")
    rollout.delete()
    return {
        "n_devices": plan.devices,
        "planning_s": round(planning, 3),
        "laying_out_s": round(laying_out, 3),
        "tick_s": round(max(seconds), 3),
        "queries": max(queries),
        "offered": offered,
        "n": ticks,
    }


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
    given = {"waves": ["100%"], "paced": False}
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
