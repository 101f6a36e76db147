"""Chooses the samples of an artifact's self-test and writes them with the answers of its own runtime.

Samples whose two best scores are nearly equal tell most about wrong arithmetic, but differences that the
tolerance allows may turn them: so the closest calls above twice the tolerance are taken. Streams are spread over the rows,
and their first steps are enough.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.benches import BENCHES
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.streams import SELF_TEST_STEPS, steps_of
from device_agent.core import selftest as wire

SAMPLES = 8
SCORES = ("float32", "int8", "uint8")
FLOAT_TOLERANCE = 1e-4  # of the largest score: kernels of other processors sum in another order
MAX_BYTES = 4 << 20

Array = npt.NDArray[Any]


def write(
    artifact: Path,
    dataset: Path,
    scores_path: Path,
    output: dict[str, Any] | None,
    out: Path,
    runtime: str = "onnxruntime",
) -> dict[str, Any]:
    """Write the self-test of an artifact from validation rows, answered by its runtime; runs in a limited child.

    `scores_path` holds the scores of those rows, `output` scale and zero point of an int8 output.
    Returns the inputs and outputs of the artifact as the signature lists them.
    """
    bench = BENCHES[runtime]
    data, scores = Dataset.load(dataset), np.load(scores_path, allow_pickle=False)
    rows, _ = data.rows("validation")
    flat = scores.reshape(len(scores), -1)
    tolerance, step = _tolerance(flat, output, bench.tolerance_lsb)
    inputs, outputs = bench.ports(artifact)
    stream = bench.keeps_state(artifact)
    if not bench.knows_shapes and len(inputs) == 1 and not stream:
        inputs[0]["shape"] = [1, *rows.shape[1:]]
    classifies = data.task == "classification" and flat.shape[1] > 1 and outputs[0]["dtype"] in SCORES
    chosen, decided = _spread(len(rows), SAMPLES), False
    if classifies and not stream:
        chosen, decided = _choose(flat, 2 * step, SAMPLES)
    taken = _first_steps(rows[chosen], inputs[0]) if stream else rows[chosen]
    taken = taken[: max(1, MAX_BYTES // max(taken[0].nbytes, 1))]
    samples = [
        ([_raw(tensor) for tensor in given], [_raw(answer) for answer in answered])
        for given, answered in bench.samples(artifact, taken)
    ]
    runs = len(samples[0][0]) if stream else 0
    with open(out, "wb") as file:
        wire.write(file, _specs(inputs, None), _specs(outputs, output), tolerance, samples, decided, runs)
    return {"inputs": inputs, "outputs": outputs, "samples": len(samples)}


def _tolerance(scores: Array, output: dict[str, Any] | None, lsb: int) -> tuple[dict[str, Any], float]:
    """The tolerance as the file states it, and as a difference of scores."""
    if output is not None and lsb == 0:
        return {"mode": "equal", "value": 0}, 0.0
    if output is not None:
        return {"mode": "lsb", "value": lsb}, lsb * output["scale"]
    step = float(max(np.abs(scores).max(), 1e-6) * FLOAT_TOLERANCE)
    return {"mode": "atol", "value": step}, step


def _choose(scores: Array, margin: float, count: int) -> tuple[Array, bool]:
    """Rows with the smallest margin above `margin`, and whether there were enough to compare classes."""
    ordered = np.sort(scores, axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    clear = np.flatnonzero(margins > margin)
    if len(clear) < min(count, len(scores)):
        return _spread(len(scores), count), False
    return clear[np.argsort(margins[clear], kind="stable")[:count]], True


def _first_steps(rows: Array, port: dict[str, Any]) -> Array:
    return steps_of(rows, int(np.prod(port["shape"])))[:, :SELF_TEST_STEPS]


def _spread(rows: int, count: int) -> Array:
    return np.unique(np.linspace(0, rows - 1, min(count, rows)).round().astype(np.int64))


def _specs(listed: list[dict[str, Any]], output: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [
        {"dtype": port["dtype"], "shape": port["shape"], **({"scale": output["scale"]} if output else {})}
        for port in listed
    ]


def _raw(values: Array) -> bytes:
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
