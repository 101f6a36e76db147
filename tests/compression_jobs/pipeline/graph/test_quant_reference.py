"""The integer reference against TensorFlow Lite Micro's own kernels.

The digests are of what `tflite_micro` 0.dev20261023 answered to the same graphs, written as int8 TFLite files.
Graphs and rows are made of whole numbers from a fixed seed, so that they are the same everywhere.
"""

import hashlib

import numpy as np
import pytest

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_reference import run

ROWS = 50


def scale(thousandths: float) -> float:
    return float(np.float32(thousandths / 1000))


def weights(*shape: int, axis: int, seed: int) -> q.Weights:
    chance = np.random.default_rng(seed)
    channels = shape[axis]
    scales = np.float32(chance.integers(2, 9, channels) / 1000).astype(np.float64)
    values = chance.integers(-127, 128, shape).astype(np.int8)
    return q.Weights(values, scales, chance.integers(-4000, 4000, channels).astype(np.int32))


def picture(name: str, *shape: int, thousandths: float, zero_point: int) -> q.Tensor:
    return q.Tensor(name, (1, *shape), scale(thousandths), zero_point)


X = picture("x", 6, 7, 4, thousandths=23, zero_point=-11)
SAME = {"thousandths": 23, "zero_point": -11}
CASES: dict[str, tuple[q.Tensor, q.Tensor, q.Op, str]] = {
    "conv": (
        X,
        picture("y", 3, 4, 5, thousandths=120, zero_point=7),
        q.Conv("op", ("x",), "y", weights(5, 3, 3, 4, axis=0, seed=1), "none", (2, 2), (1, 1, 1, 1), (1, 1)),
        "54793336c25557ca",
    ),
    "dilated conv with relu": (
        X,
        picture("y", 2, 3, 5, thousandths=60, zero_point=-128),
        q.Conv("op", ("x",), "y", weights(5, 3, 3, 4, axis=0, seed=2), "relu", (1, 1), (0, 0, 0, 0), (2, 2)),
        "766e7e17a26492fa",
    ),
    "depthwise with relu6": (
        X,
        picture("y", 6, 7, 8, thousandths=24, zero_point=-100),
        q.DepthwiseConv(
            "op", ("x",), "y", weights(1, 3, 3, 8, axis=3, seed=3), "relu6", (1, 1), (1, 1, 1, 1), (1, 1)
        ),
        "6cf06bbb2d7ac81f",
    ),
    "fully connected": (
        picture("x", 64, thousandths=40, zero_point=30),
        picture("y", 9, thousandths=300, zero_point=-3),
        q.FullyConnected("op", ("x",), "y", weights(9, 64, axis=0, seed=4), "none"),
        "13fbfd52e0f9d0df",
    ),
    "add": (
        X,
        picture("y", 6, 7, 4, thousandths=40, zero_point=20),
        q.Add("op", ("x", "x"), "y", "none"),
        "475285289d9f9f34",
    ),
    "average": (
        X,
        picture("y", 3, 3, 4, **SAME),
        q.Pool("op", ("x",), "y", "average", (2, 2), (2, 2), (0, 0, 0, 0)),
        "fa99f368305fd815",
    ),
    "maximum": (
        X,
        picture("y", 2, 2, 4, **SAME),
        q.Pool("op", ("x",), "y", "max", (3, 3), (2, 3), (0, 0, 0, 0)),
        "07fdef7c89e84c17",
    ),
    "mean": (X, picture("y", 4, thousandths=9, zero_point=3), q.Mean("op", ("x",), "y"), "4d42f318bdcbdd14"),
    "pad": (X, picture("y", 9, 8, 4, **SAME), q.Pad("op", ("x",), "y", (1, 0, 2, 1)), "6edf6bbfdc1d454f"),
    "relu6 alone": (
        X,
        picture("y", 6, 7, 4, **SAME),
        q.Clamp("op", ("x",), "y", "relu6"),
        "e8f0411417e74dea",
    ),
    "softmax": (
        picture("x", 10, thousandths=90, zero_point=5),
        q.Tensor("y", (1, 10), q.SOFTMAX_SCALE, q.SOFTMAX_ZERO_POINT),
        q.Softmax("op", ("x",), "y"),
        "8da6b0352aa47fa4",
    ),
}


def graph_and_rows(name: str) -> tuple[q.QuantGraph, np.ndarray]:
    source, target, op, _ = CASES[name]
    graph = q.QuantGraph({"x": source, "y": target}, [op], ["x"], ["y"])
    return graph, np.random.default_rng(5).integers(-128, 128, (ROWS, *source.shape[1:])).astype(np.int8)


@pytest.mark.parametrize("name", CASES)
def test_every_operator_gives_the_bytes_of_tflite_micro(name: str) -> None:
    graph, rows = graph_and_rows(name)
    answers = run(graph, {"x": rows})["y"]
    assert answers.shape == (ROWS, *graph.tensors["y"].shape[1:])
    assert len(np.unique(answers)) > 20  # neither stuck at an end nor constant
    assert hashlib.sha256(answers.tobytes()).hexdigest()[:16] == CASES[name][3]
