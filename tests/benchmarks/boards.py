"""What fits on which board: the MLPerf Tiny networks and a ready wake word as plans, against each board's budget, by the cost model.

With `--markdown` it prints the table of device_agent/README.md.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compression_jobs.pipeline.emit.plan import emit
from compression_jobs.pipeline.graph.costs import total_macs
from compression_jobs.pipeline.graph.facts_tflite import describe_tflite
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from compression_jobs.pipeline.graph.quant_build import build
from compression_jobs.pipeline.graph.quant_calibrate import calibrate
from compression_jobs.pipeline.latency import estimate_us
from compression_jobs.pipeline.targets import TARGETS, Target
from device_agent.runtimes.plan.twin import Plan
from tests.compression_jobs.pipeline.mlperf_tiny import MODELS
from tests.compression_jobs.pipeline.wake_words import wake_word

BOARDS = [target for target in TARGETS.values() if target.runtime == "micropython"]
KB = 1024
WAKE_WORD = "okay_nabu"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--markdown", action="store_true", help="print the table of the README instead")


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line a network."""
    rows = [_row(name, *_network(name)) for name in MODELS] + [_row(WAKE_WORD, *_ready(WAKE_WORD))]
    if options.markdown:
        print(markdown(rows))
        return
    yield from rows


def _network(name: str) -> tuple[bytes, int]:
    net = MODELS[name]()
    graph = net.graph()
    plan = emit(build(graph, calibrate(graph, net.rows(4), "minmax", 100.0), "per_channel"))
    return plan, total_macs(graph) or 0


def _ready(name: str) -> tuple[bytes, int]:
    content = wake_word(name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return emit(from_tflite(content)), describe_tflite(path)["macs"]


def _row(name: str, plan: bytes, macs: int) -> dict[str, Any]:
    arena, heap = _memory(plan)
    row: dict[str, Any] = {"model": name, "n": 1, "macs": macs, "plan_bytes": len(plan), "arena_bytes": arena}
    for board in BOARDS:
        row[board.slug] = {
            "fits": _fits(board, len(plan), heap),
            "estimated_us": estimate_us(board, macs, True),
        }
    return row


def _memory(plan: bytes) -> tuple[int, int]:
    """Bytes of the arena, and of the heap that it takes with everything around it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "plan"
        path.write_bytes(plan)
        twin = Plan()
        twin.load(str(path))
        return twin.arena_bytes, twin.heap_bytes


def _fits(board: Target, size: int, heap: int) -> str:
    """The budget that binds, or whether the weights would stay in RAM or be read from flash."""
    if size > board.flash_bytes:
        return "no: flash"
    if heap > board.ram_bytes:
        return "no: RAM"
    return "yes" if heap + size <= board.ram_bytes else "yes, weights from flash"


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of the README."""
    heads = [f"{b.slug} ({b.ram_bytes // KB} KB RAM, {b.flash_bytes // KB} KB flash)" for b in BOARDS]
    lines = [" | ".join(["| model", "arena", "flash", *heads]) + " |", "|" + "---|" * (3 + len(BOARDS))]
    for row in rows:
        cells = [f"{row[b.slug]['fits']}; {row[b.slug]['estimated_us'] / 1000:,.0f} ms" for b in BOARDS]
        sizes = [f"{row['arena_bytes'] / KB:,.1f} KB", f"{row['plan_bytes'] / KB:,.1f} KB"]
        lines.append(" | ".join([f"| {row['model']}", *sizes, *cells]) + " |")
    return "\n".join(lines)
