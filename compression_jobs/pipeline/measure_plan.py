"""Measures a plan in its NumPy twin, which gives the bytes that boards give; runs inside a limited child.

Peak RAM is what a board's heap holds when it streams the weights from flash. The twin's time says nothing about a board; it is there to compare candidates.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline import beside
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.streams import steps_of
from device_agent.runtimes.edges import Edge, normalised
from device_agent.runtimes.plan.twin import Plan

TIMED_RUNS = 30
FEATURE_BYTES = 40  # mean and std in MicroPython: two numbers of a block each, and their places in lists

Int8Array = npt.NDArray[np.int8]


def measure(artifact: Path, dataset: Path, split: str, outputs: Path) -> dict[str, Any]:
    """Run every row of a split; writes the scores to `outputs` (.npy) and returns time and memory."""
    rows, _ = Dataset.load(dataset).rows(split)
    plan = _open(artifact)
    given = stored(artifact, rows)
    answers = _answers(plan, given)[0]
    np.save(outputs, _edge(plan.outputs[0], answers.shape).to_numbers(answers).reshape(answers.shape))
    evened = beside.read(artifact)
    held = 0 if evened is None else FEATURE_BYTES * len(evened["mean"])
    return {"peak_ram_bytes": plan.heap_bytes + held, "host_latency_us": _latency(plan, given)}


def stored(artifact: Path, rows: npt.NDArray[Any]) -> Int8Array:
    """The rows as the plan takes them, (rows, bytes) of int8; a stream has several inputs in a row."""
    flat = rows.reshape(len(rows), -1)
    if flat.dtype == np.uint8:  # what a uint8 model takes; inside it is int8
        return (flat ^ 128).view(np.int8)
    [edge] = normalised([_edge(_open(artifact).inputs[0], rows.shape)], beside.read(artifact))
    return np.asarray(edge.from_numbers(rows), np.int8).reshape(flat.shape)


def keeps_state(artifact: Path) -> bool:
    """Whether a run of the plan leaves something to the next one."""
    return _open(artifact).keeps_state


def samples(artifact: Path, rows: npt.NDArray[Any]) -> list[tuple[list[Any], list[Any]]]:
    """Stored inputs and stored outputs of the plan for each row; a stream has the inputs of all its steps."""
    plan, given = _open(artifact), stored(artifact, rows)
    steps = steps_of(given, plan.inputs[0][1])
    answers = zip(*_answers(plan, given), strict=True)
    return [(list(row), list(answer)) for row, answer in zip(steps, answers, strict=True)]


def _answers(plan: Plan, given: Int8Array) -> list[Int8Array]:
    """Each output for all rows; that of a stream is the one of its last step."""
    if not plan.keeps_state:
        return plan.run_rows([given])
    found = []
    for row in steps_of(given, plan.inputs[0][1]):
        plan.reset()
        found.append([part[-1:] for part in plan.run_rows([row])])
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def ports(artifact: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of the plan as the signature lists them; a plan knows sizes, not shapes."""
    plan = _open(artifact)
    return [_port("input", edge) for edge in plan.inputs], [_port("output", edge) for edge in plan.outputs]


def _open(artifact: Path) -> Plan:
    plan = Plan()
    plan.load(str(artifact))
    return plan


def _edge(edge: tuple[int, int, int, float], shape: tuple[int, ...]) -> Edge:
    return Edge("input", np.dtype(np.int8), shape, edge[3], edge[2] - 128)


def _port(name: str, edge: tuple[int, int, int, float]) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": "int8",
        "shape": [1, edge[1]],
        "scale": edge[3],
        "zero_point": edge[2] - 128,
    }


def _latency(plan: Plan, given: Int8Array) -> dict[str, float]:
    """Of one run, also of a stream."""
    given = given.reshape(-1, plan.inputs[0][1])
    times = np.empty(TIMED_RUNS)
    for i in range(TIMED_RUNS):
        row = given[i % len(given)][np.newaxis]
        start = time.perf_counter_ns()
        plan.run_rows([row])
        times[i] = (time.perf_counter_ns() - start) / 1000
    p50, p95 = np.percentile(times, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1)}
