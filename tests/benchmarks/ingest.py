"""Reports through the gateway's inbox into rows: batches of 200 as they are read from the broker, against one by one.

Both ways check, write and commit the same kind of messages on a database file as the embedded stack has it; every
message is sent twice, and the second time must count nothing.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

DEVICES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much work."""
    parser.add_argument("--rounds", type=int, default=5, help="batches that are timed in each way")


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line: how many times faster a batch is, and what either way does in a second."""
    _prepare()
    from fleet.gateway.inbox import BATCH_MESSAGES, store
    from fleet.telemetry.models import Report
    from tests.factories import ArtifactFactory, DeviceFactory

    source = random.Random(options.seed)
    artifact = ArtifactFactory()
    names = [DeviceFactory(target=artifact.target).name for _ in range(DEVICES)]
    seconds = {"batched": 0.0, "single": 0.0}
    for at in range(options.rounds):
        for way, size in (("batched", BATCH_MESSAGES), ("single", 1)):
            first = (2 * at + (way == "single")) * BATCH_MESSAGES
            messages = [
                _arrival(source, names[n % DEVICES], artifact.sha256, first + n)
                for n in range(BATCH_MESSAGES)
            ]
            seconds[way] += _timed(store, messages, size)
    sent = 2 * options.rounds * BATCH_MESSAGES
    counted = Report.objects.count()
    if counted != sent:
        raise SystemExit(f"{counted} reports were counted, and {sent} were sent")
    each_way = options.rounds * BATCH_MESSAGES
    yield {
        "ratio": round(seconds["single"] / seconds["batched"], 2),
        "batched_per_second": round(each_way / seconds["batched"]),
        "single_per_second": round(each_way / seconds["single"]),
        "batch": BATCH_MESSAGES,
        "devices": DEVICES,
        "counted_twice": counted - sent,
        "n": each_way,
    }


def _prepare() -> None:
    """An empty database of this run alone."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _arrival(source: random.Random, device: str, artifact: str, sequence: int) -> Any:
    from device_agent.core import protocol
    from device_agent.core.histogram import Histogram
    from fleet.gateway.broker import Arrival

    latency = Histogram()
    for _ in range(60):
        latency.add(int(source.lognormvariate(9, 0.4)))
    body = {
        "epoch": 1, "boot": 1, "sequence": sequence, "app": "main", "artifact": artifact, "slot": "a",
        "phase": "live", "start_ms": 30_000 * sequence, "end_ms": 30_000 * (sequence + 1), "n": 60, "errors": 0,
        "latency": latency.to_wire(), "labelled": 20, "correct": 19, "heap_free_min": 100_000,
    }  # fmt: skip
    return Arrival(protocol.device_topic(device, "report"), protocol.encode(body), False, 1, 1, 1)


def _timed(store: Callable[[Sequence[Any], Any], None], messages: Sequence[Any], size: int) -> float:
    """Seconds for all messages in batches of `size`; then all of them again, as after a lost acknowledgement."""
    from django.utils import timezone

    began = time.perf_counter()
    for at in range(0, len(messages), size):
        store(messages[at : at + size], timezone.now())
    took = time.perf_counter() - began
    store(messages, timezone.now())
    return took
