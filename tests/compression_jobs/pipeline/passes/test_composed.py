"""Passes one behind the other, on nets of every kind: each goes on with what the one before made."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.emit.table import EMITTERS
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.quant_reference import run_float
from compression_jobs.pipeline.graph.quantgraph import QuantGraph
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.stages import Bench, Told
from tests.compression_jobs.pipeline.nets import NETS

FEW: dict[str, Any] = {"steps": 2, "batch": 8}
STEPS: list[dict[str, Any]] = [
    {"name": "equalize"},
    {"name": "elastic", "options": FEW},
    {"name": "subnet", "options": {"width": 0.75}},
    {"name": "prune_channels", "options": {**FEW, "ratio": 0.25, "rounds": 1}},
    {"name": "factorize", "options": {**FEW, "energy": 0.8}},
    {"name": "dictionary", "options": {**FEW, "smallest": 64}},
    {"name": "prune", "options": {**FEW, "sparsity": 0.5}},
    {"name": "cluster", "options": {**FEW, "clusters": 8}},
    {"name": "qat", "options": {**FEW, "keep_clusters": True}},
]
INT8 = {"name": "quantize", "options": {"bias_correction": True}}


def bench_of(name: str, folder: Path, steps: list[dict[str, Any]]) -> Bench:
    """A net of random weights with rows that it classifies itself."""
    made = NETS[name]()
    made.graph().save(folder / f"{name}.onnx")
    x = made.rows(80)
    split = np.repeat(["train", "calibration", "validation", "test"], 20)
    np.savez(folder / f"{name}.npz", x=x, y=np.arange(80) % 3, split=split)
    data = Dataset.load(folder / f"{name}.npz")
    graph = canonicalise(folder / f"{name}.onnx", data.rows("calibration")[0][:8])
    return Bench(parse_recipe(steps), 0, data, graph, Told(folder / "told"))


def runs_everywhere(bench: Bench) -> None:
    """The int8 graph that comes out answers with numbers, and every runtime has a file of it."""
    graph = bench.run()
    assert isinstance(graph, QuantGraph)
    assert np.isfinite(run_float(graph, bench.calibration)).all()
    for runtime in ("onnxruntime", "tflite-micro", "micropython"):
        assert EMITTERS[runtime].quantized(graph)


@pytest.mark.parametrize("name", NETS)
def test_all_passes_behind_each_other(name: str, tmp_path: Path) -> None:
    runs_everywhere(bench_of(name, tmp_path, [*STEPS, INT8]))


@pytest.mark.full
@pytest.mark.parametrize("name", NETS)
def test_every_pass_behind_every_other(name: str, tmp_path: Path) -> None:
    for pair in permutations(STEPS, 2):
        runs_everywhere(bench_of(name, tmp_path, [*pair, INT8]))
