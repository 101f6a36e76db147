"""A ResNet-8 on digits brought to a microcontroller: at most 20 KiB of artifact and 8 KiB of activations.

The search finds the way itself, for a board of the `micropython` runtime with just so much free, beside what the
interpreter keeps for itself; what it publishes is measured on test rows against the float original in onnxruntime.
Seconds are for this machine and include all.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.emit.plan import emit
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from compression_jobs.pipeline.search import search
from compression_jobs.pipeline.targets import TARGETS, Target
from device_agent.runtimes.plan.twin import Plan
from tests.benchmarks import _digits

BOARD = "esp32"
FLASH_BYTES, RAM_BYTES, MAX_DROP = 20 << 10, 8 << 10, 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for seed in range(options.seed, options.seed + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            yield {**_once(Path(folder), seed), "n": _digits.ROWS["test"], "split_seed": seed}


def board(kept_bytes: int) -> Target:
    """A board that has exactly this much free beside what its interpreter keeps."""
    plain = TARGETS[BOARD].model_dump(exclude={"flash_bytes", "ram_bytes", "export_only", "subtraction"})
    sizes = {"flash_total_bytes": FLASH_BYTES, "ram_total_bytes": RAM_BYTES + kept_bytes}
    return Target.model_validate(plain | {"slug": "board"} | sizes)


def _once(folder: Path, seed: int) -> dict[str, Any]:
    model, dataset = _digits.write(folder, seed)
    whole = _plan_of(model, dataset, folder / "original.plan")
    place = {"board": board(whole.heap_bytes - whole.arena_bytes)}
    start = time.monotonic()
    goal = Goal(target="board", max_drop=MAX_DROP)
    result = search([goal], model, dataset, out=folder / "out", seed=seed, targets=place)["board"]
    seconds = time.monotonic() - start
    figures = {
        "met": result.met,
        "original_int8_bytes": result.candidates[0].bytes,
        "original_activation_bytes": whole.arena_bytes,
        "candidates": len(result.candidates),
        "seconds": round(seconds, 1),
    }
    winner = result.winner
    if winner is None or winner.test_accuracy is None:
        return figures | {"sentence": result.sentence}
    activations = _opened(Path(winner.path)).arena_bytes
    return figures | {
        "met": result.met and activations <= RAM_BYTES,
        "recipe": winner.id,
        "bytes": winner.bytes,
        "activation_bytes": activations,
        "heap_bytes": winner.peak_ram_bytes,
        "parameters": winner.parameters,
        "accuracy": round(winner.test_accuracy["value"], 4),
        "float": round(winner.test_accuracy["reference"]["value"], 4),
        "drop_points": {
            end: round(100 * winner.test_accuracy["drop"][end], 2) for end in ("value", "low", "high")
        },
    }


def _plan_of(model: Path, dataset: Path, path: Path) -> Plan:
    """The original as int8, to see what its activations take and what the interpreter keeps beside them."""
    rows = Dataset.load(dataset).rows("calibration")[0]
    path.write_bytes(emit(quantize(canonicalise(model, rows[:8]), QuantizeOptions(), Material(rows, 0))))
    return _opened(path)


def _opened(path: Path) -> Plan:
    plan = Plan()
    plan.load(str(path))
    return plan
