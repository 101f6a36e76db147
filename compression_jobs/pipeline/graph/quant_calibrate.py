"""Runs a float graph on calibration rows and finds the range of every tensor."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, helper

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quant_ranges import (
    Batches,
    Calibration,
    Range,
    collect,
    extremes,
    find_range,
)

NOTHING = 2e-6  # how far a tensor reaches at least that is not always 0

FloatArray = npt.NDArray[np.float32]


def calibrate(graph: Graph, rows: FloatArray, method: Calibration, percentile: float) -> dict[str, Range]:
    """The range of every float tensor of `graph`, input included, over `rows`."""
    batches = _values_of(graph, rows)
    if method == "minmax":
        return _finite(extremes(batches))
    histograms = collect(batches)
    _finite({name: (found.low, found.high) for name, found in histograms.items()})
    return {name: find_range(found, method, percentile) for name, found in histograms.items()}


def alive(graph: Graph, ranges: dict[str, Range]) -> dict[str, Range]:
    """Ranges in which a tensor that was 0 on all rows reaches as far as what it is made of.

    A scale for nothing would be so small that what made the 0 could not be brought to it in integers.
    """
    found = dict(ranges)
    for node in graph.nodes:
        for name in (name for name in node.output if name in found and _reach(found[name]) < NOTHING):
            found[name] = (
                0.0,
                max((_reach(found[each]) for each in node.input if each in found), default=1.0),
            )
    return found


def _reach(found: Range) -> float:
    return max(abs(found[0]), abs(found[1]))


def _values_of(graph: Graph, rows: FloatArray) -> Batches:
    """Every float tensor of a graph with one input, computed row by row."""
    source = graph.inputs[0]
    session, names = _session_with_every_tensor(graph)
    shaped = rows.reshape(len(rows), *source.shape[1:])

    def batches() -> Iterator[dict[str, FloatArray]]:
        for row in shaped:
            fed = row[np.newaxis].astype(np.float32)
            yield {source.name: fed, **dict(zip(names, session.run(names, {source.name: fed}), strict=True))}

    return batches


def _finite(ranges: dict[str, Range]) -> dict[str, Range]:
    broken = [name for name, found in ranges.items() if not np.isfinite(found[0] + found[1])]
    if broken:
        raise Refused(f"{broken[0]}: the model computes values that are not finite on the calibration rows")
    return ranges


def channel_means(graph: Graph, rows: FloatArray, names: set[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The mean of each channel (axis 1) of the named tensors over `rows`."""
    source = graph.inputs[0]
    session, known = _session_with_every_tensor(graph)
    wanted = [name for name in known if name in names]
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for row in rows.reshape(len(rows), *source.shape[1:]):
        fed = row[np.newaxis].astype(np.float32)
        made = {source.name: fed, **dict(zip(wanted, session.run(wanted, {source.name: fed}), strict=True))}
        for name in names:
            values = made[name].astype(np.float64)
            mean = values.mean(axis=(0, *range(2, values.ndim)))
            sums[name] = sums[name] + mean if name in sums else mean
    return {name: total / len(rows) for name, total in sums.items()}


def synthetic_rows(graph: Graph, count: int, seed: int) -> FloatArray:
    """Standard normal inputs, for when no data may be used."""
    shape = graph.inputs[0].shape[1:]
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def _session_with_every_tensor(graph: Graph) -> tuple[Any, list[str]]:
    observed = graph.copy()
    dtypes = graph.dtypes
    names = [name for node in graph.nodes for name in node.output if dtypes.get(name) == "float32"]
    kept = graph.output_names
    observed.model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in kept
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Fused operators would hide the tensors between them.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(observed.to_bytes(), options, providers=["CPUExecutionProvider"]), names
