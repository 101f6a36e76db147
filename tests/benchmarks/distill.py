"""A student taught by ResNet-8 against the same student trained on labels alone, on digits; paired over seeds.

Both start from the same fresh weights and see the same rows in the same order; only the share of the teacher in the
loss differs. The interval of the mean gain is Student's t over the seeds, each with its own split and teacher.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.torch_import import import_net
from compression_jobs.pipeline.passes.distill import distill
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.training_options import DistillOptions
from tests.benchmarks import _digits

WIDTH, STEPS = 0.25, 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200, help="rows to train the students on")


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    gains = []
    for seed in range(options.seed, options.seed + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            found = _once(Path(folder), seed, options.rows)
        gains.append(100 * (found["distilled"] - found["alone"]))
        yield {**found, "rows": options.rows, "n": _digits.ROWS["test"], "split_seed": seed}
    mean = float(np.mean(gains))
    half = float(stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)) if len(gains) > 1 else float("nan")
    yield {
        "gain_points": round(mean, 2),
        "gain_interval": [round(mean - half, 2), round(mean + half, 2)],
        "above_alone": mean - half > 0,
        "rows": options.rows,
        "n": _digits.ROWS["test"] * len(gains),
    }


def _once(folder: Path, seed: int, rows: int) -> dict[str, Any]:
    model, path = _digits.write(folder, seed)
    data = Dataset.load(_with_fewer_rows(path, rows))
    calibration = data.rows("calibration")[0]
    graph = canonicalise(model, calibration[:8])
    material = Material(calibration, seed, data, graph)
    figures = {"teacher": _accuracy(import_net(graph, calibration), data)}
    for name, share in (("alone", 0.0), ("distilled", 0.7)):
        options = DistillOptions(width=WIDTH, steps=STEPS, distillation=share)
        figures[name] = _accuracy(distill(import_net(graph, calibration), options, material), data)
    return figures


def _with_fewer_rows(path: Path, rows: int) -> Path:
    arrays = dict(np.load(path))
    train = np.flatnonzero(arrays["split"] == "train")
    kept = np.sort(np.concatenate([train[:rows], np.flatnonzero(arrays["split"] != "train")]))
    fewer = path.with_name("fewer.npz")
    np.savez(fewer, **{name: values[kept] for name, values in arrays.items()})
    return fewer


def _accuracy(net: torch.nn.Module, data: Dataset) -> float:
    x, y = data.rows("test")
    with torch.no_grad():
        return round(float(np.mean(net(torch.from_numpy(x)).numpy().argmax(1) == y)), 4)
