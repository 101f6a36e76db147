"""Measures a `.tflite` in LiteRT or TensorFlow Lite Micro, row by row; runs inside a limited child.

A damaged file or an arena that is too small may end the process: that is why the child is there.
"""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline import beside
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.facts_tflite import keeps_state
from compression_jobs.pipeline.resident import ResidentSet
from compression_jobs.pipeline.stopwatch import host_latency
from compression_jobs.pipeline.streams import steps_of
from device_agent.runtimes.edges import Edge, normalised
from device_agent.runtimes.litert import LiteRtRuntime

Array = npt.NDArray[Any]
Sample = tuple[list[Array], list[Array]]

# Far more than any microcontroller has; how much of it is used is what TFLM records.
ARENA_BYTES = 32 << 20
STANDARD_ERROR = 2
TIMED_ROWS = 100


class LiteRt:
    """LiteRT exactly as devices use it."""

    def __init__(self, artifact: Path) -> None:
        self._runtime = LiteRtRuntime()
        try:
            self._runtime.load(str(artifact), {"normalisation": beside.read(artifact)})
        except (ValueError, RuntimeError) as error:
            raise Refused(f"LiteRT cannot load the model: {_first_line(error)}") from error
        self.inputs, self.outputs = self._runtime.inputs, self._runtime.outputs
        self.keeps_state = keeps_state(artifact)
        self.reset = self._runtime.reset
        _refuse_several(self.inputs)

    def invoke(self, tensor: Array) -> list[Array]:
        """Raw outputs."""
        raw = self._runtime.run_raw([tensor.tobytes()])
        return [edge.from_raw(data) for edge, data in zip(self.outputs, raw, strict=True)]


class TfliteMicro:
    """TFLM's reference kernels in an arena of this process."""

    def __init__(self, artifact: Path) -> None:
        # Few platforms have a wheel of it; the other runtimes are measured without.
        try:
            from tflite_micro.python.tflite_micro import runtime as tflm
        except ImportError as error:
            raise Refused(
                "TensorFlow Lite Micro is not installed here",
                remedy="pip install tflite-micro, or choose other targets",
            ) from error
        try:
            self._interpreter = tflm.Interpreter.from_file(str(artifact), arena_size=ARENA_BYTES)
        except (ValueError, RuntimeError, SystemError) as error:
            raise Refused(
                f"TensorFlow Lite Micro cannot load the model: {_first_line(error)}",
                remedy="LiteRT and onnxruntime know more operators",
            ) from error
        self.inputs = normalised(_edges(self._interpreter.get_input_details), beside.read(artifact))
        self.outputs = _edges(self._interpreter.get_output_details)
        self.keeps_state = keeps_state(artifact)
        self.reset = self._interpreter.reset
        _refuse_several(self.inputs)

    def invoke(self, tensor: Array) -> list[Array]:
        """Raw outputs."""
        self._interpreter.set_input(tensor, 0)
        self._interpreter.invoke()
        return [self._interpreter.get_output(index) for index in range(len(self.outputs))]

    def arena_bytes(self) -> int:
        """What TFLM recorded; on a 64-bit host an upper bound, because its own records have 32-bit pointers there."""
        text = _standard_error_of(self._interpreter.print_allocations)
        found = re.search(r"Arena allocation total (\d+)", text)
        if found is None:
            raise Refused("TensorFlow Lite Micro did not say how much memory the model takes")
        return int(found[1])


Engine = LiteRt | TfliteMicro


def measure_litert(artifact: Path, dataset: Path, split: str, outputs: Path) -> dict[str, Any]:
    """Run every row of a split; writes the scores to `outputs` (.npy) and returns time and memory."""
    rows, _ = Dataset.load(dataset).rows(split)
    memory = ResidentSet()
    engine = LiteRt(artifact)
    latency = _score(engine, rows, outputs)
    return {"peak_ram_bytes": memory.increase(), "host_latency_us": latency}


def measure_tflite_micro(artifact: Path, dataset: Path, split: str, outputs: Path) -> dict[str, Any]:
    """Run every row of a split; writes the scores to `outputs` (.npy) and returns time and TFLM's own record."""
    rows, _ = Dataset.load(dataset).rows(split)
    engine = TfliteMicro(artifact)
    latency = _score(engine, rows, outputs)
    return {"peak_ram_bytes": engine.arena_bytes(), "host_latency_us": latency}


def litert_ports(artifact: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of the model as the signature lists them."""
    return _ports(LiteRt(artifact))


def tflite_micro_ports(artifact: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of the model as the signature lists them."""
    return _ports(TfliteMicro(artifact))


def litert_samples(artifact: Path, rows: Array) -> list[Sample]:
    """Raw inputs and outputs for each row."""
    return _samples(LiteRt(artifact), rows)


def tflite_micro_samples(artifact: Path, rows: Array) -> list[Sample]:
    """Raw inputs and outputs for each row."""
    return _samples(TfliteMicro(artifact), rows)


def _score(engine: Engine, rows: Array, outputs: Path) -> dict[str, float]:
    edge = engine.outputs[0]
    answers = (_answers(engine, _steps(engine, row))[0] for row in rows)
    scores = np.concatenate([edge.to_numbers(answer).reshape(1, *edge.shape[1:]) for answer in answers])
    single = np.concatenate([row.reshape(-1, *engine.inputs[0].shape[1:]) for row in rows[:TIMED_ROWS]])
    latency = host_latency(lambda step: engine.invoke(_input(engine, step))[0], single)
    np.save(outputs, scores.astype(np.float32))
    return latency


def _samples(engine: Engine, rows: Array) -> list[Sample]:
    found = [_steps(engine, row) for row in rows]
    return [(steps, _answers(engine, steps)) for steps in found]


def _steps(engine: Engine, row: Array) -> list[Array]:
    """The input of each run that a row asks for: one, or those of a stream."""
    if not engine.keeps_state:
        return [_input(engine, row)]
    shape = engine.inputs[0].shape
    [steps] = steps_of(row[np.newaxis], int(np.prod(shape)))
    return [_input(engine, step.reshape(shape)) for step in steps]


def _answers(engine: Engine, steps: list[Array]) -> list[Array]:
    """Raw outputs of the last run."""
    if engine.keeps_state:
        engine.reset()
    answers: list[Array] = []
    for tensor in steps:
        answers = engine.invoke(tensor)
    return answers


def _input(engine: Engine, row: Array) -> Array:
    try:
        return engine.inputs[0].from_numbers(row)
    except ValueError as error:
        raise Refused(str(error)) from error


def _ports(engine: Engine) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return [_port(edge) for edge in engine.inputs], [_port(edge) for edge in engine.outputs]


def _port(edge: Edge) -> dict[str, Any]:
    zero_point = None if edge.scale is None else edge.zero_point
    port = {"name": edge.name, "dtype": edge.dtype.name, "shape": list(edge.shape)}
    return port | {"scale": edge.scale, "zero_point": zero_point}


def _edges(details: Callable[[int], dict[str, Any]]) -> list[Edge]:
    """TFLM knows neither names nor the number of its tensors; it raises where there are no more."""
    edges: list[Edge] = []
    while len(edges) < 64:
        try:
            found = details(len(edges))
        except (IndexError, ValueError, RuntimeError):
            break
        scales = found["quantization_parameters"]["scales"]
        zero_points = found["quantization_parameters"]["zero_points"]
        scale = float(scales[0]) if len(scales) else None
        shape = tuple(int(size) for size in found["shape"])
        zero_point = int(zero_points[0]) if len(zero_points) else 0
        edges.append(Edge(str(len(edges)), np.dtype(found["dtype"]), shape, scale or None, zero_point))
    return edges


def _refuse_several(inputs: list[Edge]) -> None:
    if len(inputs) != 1:
        raise Refused(f"the model has {len(inputs)} inputs; one can be measured")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unknown reason"])[0][:300]


def _standard_error_of(function: Callable[[], object]) -> str:
    """What a native function writes to file descriptor 2."""
    kept = os.dup(STANDARD_ERROR)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), STANDARD_ERROR)
            function()
            os.dup2(kept, STANDARD_ERROR)
            file.seek(0)
            return file.read().decode(errors="replace")
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)
