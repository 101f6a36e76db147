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


@dataclass(frozen=True)
class Tick:
    """What one tick took: by the clock, of this process's CPU, and statements."""

    seconds: float
    cpu_seconds: float
    queries: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many devices."""
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--ticks", type=int, default=5)
    parser.add_argument("--past", type=int, default=3, help="Rollouts to all of them that are over already.")


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line for a tenth of the fleet and one for all of it."""
    import os

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.config.settings")
    django.setup()
    with database() as vendor:
        for devices in (max(1, options.devices // 10), options.devices):
            yield {"database": vendor, **measure(devices, options.ticks, options.past)}


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


def measure(devices: int, ticks: int, past: int = 0) -> dict[str, Any]:
    """A rollout in one wave, as fast as it goes and to its end; and one that its gate turns round half way."""
    from fleet.rollouts import preparation
    from fleet.rollouts.models import Delivery

    rollout = laid_in(devices)
    for _ in range(past):
        remember(rollout)
    order = preparation.Order(rollout.version, rollout.group, rollout.app, rules(rollout))
    began = time.perf_counter()
    plan = preparation.draw_up(order)
    planning = time.perf_counter() - began
    laying_out = laid_out(rollout)
    offering = [timed_tick(100 + tick) for tick in range(ticks)]
    offered = Delivery.objects.filter(rollout=rollout).exclude(offered_at=None).count()
    looking = [answered_tick(rollout, share, 200 + n) for n, share in enumerate((0.5, 0.6, 0.7))]
    ending = [answered_tick(rollout, 1.0, 300)]
    while rollout.state == "running":
        ending.append(timed_tick(300 + len(ending)))
        rollout.refresh_from_db()
    return {
        "n_devices": plan.devices,
        "past": past,
        "planning_s": round(planning, 3),
        **worst("laying_out", laying_out),
        **worst("tick", offering),
        **worst("look", looking),
        **worst("judge", ending),
        "offered": offered,
        "ended": rollout.state,
        **worst("roll_back", turned_round(devices, ticks)),
        "n": ticks,
    }


def laid_out(rollout: Any) -> list[Tick]:
    """Ticks until the rollout runs, from the one that draws up its plan; the last one may send the first offers."""
    found: list[Tick] = []
    while rollout.state in ("scheduled", "starting"):
        found.append(timed_tick(len(found)))
        rollout.refresh_from_db()
    return found


def turned_round(devices: int, ticks: int) -> list[Tick]:
    """The tick in which the gate finds that three of four devices went back by themselves, and those that follow."""
    rollout = laid_in(devices, "bad")
    laid_out(rollout)
    return [stopped_tick(rollout, 400), *(timed_tick(401 + tick) for tick in range(ticks))]


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


def stopped_tick(rollout: Any, second: int) -> Tick:
    """The same, once three of four devices went back by themselves; the rollout then turns round."""
    answer(rollout, 0.75, NOW + timedelta(seconds=second), end="rolled_back")
    found = timed_tick(second)
    rollout.refresh_from_db()
    assert rollout.state == "rolling_back", rollout.reason
    return found


def answer(rollout: Any, share: float, now: datetime, end: str = "succeeded") -> None:
    """The first so many of the plan have gone all the way."""
    steps = ("offered", "downloading", "verifying", "testing", "trial", end)
    past = [{"state": state, "at": now.isoformat(), "reason": ""} for state in steps]
    rollout.deliveries.filter(position__lte=share * rollout.deliveries.count()).update(
        state=end,
        offered_at=NOW,
        changed_at=now,
        finished_at=now,
        history=past,
        evidence={"n": 50, "errors": 0, "labelled": 0, "correct": 0, "enough": True},
    )


def laid_in(devices: int, name: str = "good") -> Any:
    """A scheduled rollout to so many devices of two targets, which all run the version before."""
    from fleet.inventory.models import Device, DeviceApp
    from fleet.rollouts.models import Rollout
    from tests.factories import ArtifactFactory, GroupFactory, TargetFactory, VersionFactory

    targets = [TargetFactory(slug=slug) for slug in ("raspberry-pi-4", "raspberry-pi-5")]
    group = GroupFactory(slug=f"{name}-{devices}")
    old = VersionFactory()
    version = VersionFactory(model=old.model)
    runs = [ArtifactFactory(version=old, target=target) for target in targets]
    for target in targets:
        ArtifactFactory(version=version, target=target)
    rows = [
        Device(
            name=f"{name}-{devices}-{n}",
            target=targets[n % 2],
            online=True,
            labels={"site": f"s{n % 50}"},
            hello={"heap_free": 200_000_000 + n % 7, "board": "pi", "runtime": "onnxruntime"},
        )
        for n in range(devices)
    ]
    Device.objects.bulk_create(rows, batch_size=1000)
    apps = [
        DeviceApp(device=device, artifact=runs[n % 2], artifact_sha256=runs[n % 2].sha256)
        for n, device in enumerate(rows)
    ]
    DeviceApp.objects.bulk_create(apps, batch_size=1000)
    group.members.set(rows)
    given = {"waves": ["100%"], "paced": False, "soak_seconds": 0}
    return Rollout.objects.create(version=version, group=group, strategy=given, state="scheduled")


def remember(rollout: Any) -> None:
    """A rollout to the same devices that is over; each of them has accepted its last intent."""
    from fleet.inventory.models import DeviceApp
    from fleet.rollouts.models import Delivery, Intent, Rollout, Wave

    runs = dict(DeviceApp.objects.filter(device__groups=rollout.group).values_list("device", "artifact"))
    times = {"offered_at": NOW, "changed_at": NOW, "finished_at": NOW}
    over = Rollout.objects.create(
        version=rollout.version, group=rollout.group, strategy={}, state="succeeded", started_at=NOW
    )
    wave = Wave.objects.create(rollout=over, number=1, state="passed")
    rows = [
        Delivery(rollout=over, wave=wave, device_id=device, artifact_id=artifact, state="succeeded", **times)
        for device, artifact in runs.items()
    ]
    Delivery.objects.bulk_create(rows, batch_size=1000)
    Intent.objects.filter(device__in=runs).update(current=False)
    signed = {"app": "main", "payload": b"x", "digest": "a" * 64, "issued_at": NOW, "due": False}
    sequence = over.pk
    intents = [
        Intent(device_id=row.device_id, delivery=row, sequence=sequence, expires_at=NOW, **signed)
        for row in rows
    ]
    Intent.objects.bulk_create(intents, batch_size=1000)
    DeviceApp.objects.filter(device__in=runs).update(last_sequence=sequence, manifest_sha256="a" * 64)


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
