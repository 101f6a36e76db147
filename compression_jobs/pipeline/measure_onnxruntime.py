"""Measures an ONNX file in onnxruntime, with the options that devices use; runs inside a limited child."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.resident import ResidentSet
from compression_jobs.pipeline.stopwatch import host_latency
from device_agent.runtimes.onnx import open_session

NUMPY_NAMES = {"tensor(float)": "float32", "tensor(double)": "float64"}
ZIPPED = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")


def measure(artifact: Path, dataset: Path, split: str, outputs: Path) -> dict[str, Any]:
    """Run every row of a split alone; writes the scores to `outputs` (.npy) and returns time and memory."""
    rows, _ = Dataset.load(dataset).rows(split)
    memory = ResidentSet()
    session = _open(artifact)
    feed = Feed(session)
    scores = [feed.run(row)[feed.scores] for row in rows]
    peak_bytes = memory.increase()
    latency = host_latency(feed.run, rows)
    np.save(outputs, np.concatenate(scores).astype(np.float32))
    return {"peak_ram_bytes": peak_bytes, "host_latency_us": latency}


def samples(artifact: Path, rows: npt.NDArray[Any]) -> list[tuple[list[Any], list[Any]]]:
    """Inputs and outputs of the model for each row."""
    feed = Feed(_open(artifact))
    return [([row], feed.run(row)) for row in rows]


def ports(artifact: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of the model as the signature lists them."""
    session = _open(artifact)
    return [_port(node) for node in session.get_inputs()], [_port(node) for node in session.get_outputs()]


class Feed:
    """Runs one row at a time through a session with one input."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0]
        batch = self._input.shape[0] if self._input.shape else 1
        # A model whose batch is fixed to several rows is fed the same row several times.
        self._batch = batch if isinstance(batch, int) and batch > 1 else 1
        real = [i for i, node in enumerate(session.get_outputs()) if node.type in (*NUMPY_NAMES, *ZIPPED)]
        if not real:
            raise Refused(
                "the model has no output of floats", remedy="export it with its scores as an output"
            )
        self.scores = real[0]

    def run(self, row: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """All outputs for one row, each with a batch of one."""
        rows = np.repeat(row[np.newaxis], self._batch, axis=0)
        return [_plain(output)[:1] for output in self._session.run(None, {self._input.name: rows})]


def _plain(output: Any) -> npt.NDArray[Any]:
    """An output as an array; skl2onnx zips chances into a dictionary a row, in the order of the classes."""
    if isinstance(output, list) and output and isinstance(output[0], dict):
        return np.array([list(row.values()) for row in output], np.float32)
    return np.asarray(output)


def _open(artifact: Path) -> Any:
    return open_session(str(artifact))


def _port(node: Any) -> dict[str, Any]:
    dtype = NUMPY_NAMES.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))
    shape = [size if isinstance(size, int) else 1 for size in node.shape]
    return {"name": node.name, "dtype": dtype, "shape": shape, "scale": None, "zero_point": None}
