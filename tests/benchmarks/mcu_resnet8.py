"""A ResNet-8 on digits brought to a microcontroller: at most 20 KiB of artifact and 8 KiB of activations.

The search finds the way itself, for a board of the `micropython` runtime with just so much free; what it publishes
is measured on test rows against the float original in onnxruntime. Seconds are for this machine and include all.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.search import search
from compression_jobs.pipeline.targets import TARGETS, Target
from tests.benchmarks import _digits

BOARD = "esp32"
FLASH_BYTES, RAM_BYTES, MAX_DROP = 20 << 10, 8 << 10, 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for seed in range(options.seed, options.seed + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            yield {**_once(Path(folder), seed), "n": _digits.ROWS["test"], "split_seed": seed}


def board() -> Target:
    """A board that has exactly this much free."""
    plain = TARGETS[BOARD].model_dump(exclude={"flash_bytes", "ram_bytes", "export_only", "subtraction"})
    sizes = {"flash_total_bytes": FLASH_BYTES, "ram_total_bytes": RAM_BYTES}
    return Target.model_validate(plain | {"slug": "board"} | sizes)


def _once(folder: Path, seed: int) -> dict[str, Any]:
    model, dataset = _digits.write(folder, seed)
    start = time.monotonic()
    goal = Goal(target="board", max_drop=MAX_DROP)
    result = search([goal], model, dataset, out=folder / "out", seed=seed, targets={"board": board()})[
        "board"
    ]
    seconds = time.monotonic() - start
    original = result.candidates[0]
    figures = {
        "met": result.met,
        "original_int8_bytes": original.bytes,
        "original_arena_bytes": original.peak_ram_bytes,
        "candidates": len(result.candidates),
        "seconds": round(seconds, 1),
    }
    winner = result.winner
    if winner is None or winner.test_accuracy is None:
        return figures | {"sentence": result.sentence}
    return figures | {
        "recipe": winner.id,
        "bytes": winner.bytes,
        "arena_bytes": winner.peak_ram_bytes,
        "parameters": winner.parameters,
        "accuracy": round(winner.test_accuracy["value"], 4),
        "float": round(winner.test_accuracy["reference"]["value"], 4),
        "drop_points": {end: round(100 * value, 2) for end, value in winner.test_accuracy["drop"].items()},
    }
