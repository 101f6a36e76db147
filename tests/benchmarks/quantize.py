"""The quantize pass against `onnxruntime.quantization`: same folded model, same calibration rows, int8 QDQ measured alike.

`well_behaved` is ResNet-8 on digits, one scale a channel on both sides: the paired interval of the difference pooled
over all seeds. `imbalanced` is a DS-CNN whose channels were scaled by factors of exp(-2.5) to exp(2.5), which changes
nothing in floats, one scale a tensor on both sides; ours equalises first. Times are medians in one process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.emit.qdq_onnx import emit
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.intervals import paired_drop
from compression_jobs.pipeline.passes.equalize import equalize
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import NoOptions, QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from device_agent.runtimes.onnx import open_session
from tests.benchmarks import _digits, _training

TIMED = 5
SPREAD = 2.5
Right = np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    pairs = []
    for seed in range(options.seed, options.seed + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            figures, ours, theirs = _well_behaved(Path(folder), seed)
            yield figures
            pairs.append((ours, theirs))
            yield _imbalanced(Path(folder), seed)
    ours, theirs = (np.concatenate(side) for side in zip(*pairs, strict=True))
    low, high = _interval(ours, theirs)
    yield {
        "case": "well_behaved, all seeds",
        "gain_points": round(100 * float(ours.mean() - theirs.mean()), 2),
        "gain_interval": [low, high],
        "not_lower": high >= 0,
        "n": len(ours),
    }


def _well_behaved(folder: Path, seed: int) -> tuple[dict[str, Any], Right, Right]:
    model, path = _digits.write(folder, seed)
    data = Dataset.load(path)
    rows = data.rows("calibration")[0]
    graph = canonicalise(model, rows[:8])
    material, chosen = Material(rows, seed), QuantizeOptions(calibration="minmax")
    made = emit(quantize(graph, chosen, material))
    other = _onnxruntime(graph, rows, folder, per_channel=True)
    ours, theirs = _right(made, data), _right(other.read_bytes(), data)
    our_time = _median(lambda: emit(quantize(graph, chosen, material)))
    their_time = _median(lambda: _onnxruntime(graph, rows, folder, per_channel=True))
    figures = {
        "case": "well_behaved",
        "float": round(float(_right(graph.to_bytes(), data).mean()), 4),
        "accuracy": round(float(ours.mean()), 4),
        "onnxruntime_accuracy": round(float(theirs.mean()), 4),
        "bytes": len(made),
        "onnxruntime_bytes": other.stat().st_size,
        "time_ratio": round(our_time / their_time, 2),
        "split_seed": seed,
        "n": len(ours),
    }
    return figures, ours, theirs


def _imbalanced(folder: Path, seed: int) -> dict[str, Any]:
    data = Dataset.load(folder / "digits.npz")
    rows = data.rows("calibration")[0]
    _train_uneven(data, seed, folder / "uneven.onnx")
    graph = canonicalise(folder / "uneven.onnx", rows[:8])
    material = Material(rows, seed)
    chosen = QuantizeOptions(granularity="per_tensor", calibration="minmax", bias_correction=True)
    made = emit(quantize(equalize(graph, NoOptions(), material), chosen, material))
    other = _onnxruntime(graph, rows, folder, per_channel=False)
    before = float(_right(graph.to_bytes(), data).mean())
    ours, theirs = _right(made, data), _right(other.read_bytes(), data)
    return {
        "case": "imbalanced, one scale a tensor",
        "float": round(before, 4),
        "accuracy": round(float(ours.mean()), 4),
        "share_of_float": round(float(ours.mean()) / before, 3),
        "onnxruntime_accuracy": round(float(theirs.mean()), 4),
        "bytes": len(made),
        "onnxruntime_bytes": other.stat().st_size,
        "split_seed": seed,
        "n": len(ours),
    }


def _onnxruntime(graph: Graph, rows: np.ndarray, folder: Path, per_channel: bool) -> Path:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = graph.inputs[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{name: row[None]} for row in rows])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    source, out = folder / "folded.onnx", folder / "onnxruntime.onnx"
    graph.save(source)
    quantize_static(
        str(source),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return out


def _right(model: bytes, data: Dataset) -> Right:
    session, (x, y) = open_session(model), data.rows("test")
    name = session.get_inputs()[0].name
    return np.array([int(session.run(None, {name: row[None]})[0].argmax()) for row in x]) == y


def _interval(ours: Right, theirs: Right) -> tuple[float, float]:
    """Ends of the 95 % interval of the paired gain, in points."""
    low, high = paired_drop(ours, theirs)
    return round(100 * low, 2), round(100 * high, 2)


def _median(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _train_uneven(data: Dataset, seed: int, path: Path) -> None:
    import torch

    torch.manual_seed(seed)
    net = _ds_cnn()
    x, y = data.rows("train")
    _training.fit(net, x, y, epochs=_digits.EPOCHS, batch=_digits.BATCH, rate=_digits.RATE, cosine=False)
    _make_uneven(net, np.random.default_rng(seed))
    _training.export(net, _digits.SHAPE, path)


def _ds_cnn() -> Any:
    from torch import nn

    layers: list[Any] = [nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
        layers += [nn.Conv2d(24, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


def _make_uneven(net: Any, chance: np.random.Generator) -> None:
    """Scale each channel before a relu, and back in the layer that reads it."""
    import torch

    weighted = [layer for layer in net if hasattr(layer, "weight") and layer.weight.dim() > 1]
    norms = [layer for layer in net if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm, reader in zip(norms, weighted[1:], strict=True):
            factors = torch.from_numpy(np.exp(chance.uniform(-SPREAD, SPREAD, 24)).astype(np.float32))
            norm.weight *= factors
            norm.bias *= factors
            depthwise = reader.weight.dim() == 4 and reader.weight.shape[1] == 1
            shape = (-1, 1, 1, 1) if depthwise else (1, -1, *[1] * (reader.weight.dim() - 2))
            reader.weight /= factors.reshape(shape)
