"""Bias correction: take back the shift of each channel that rounding its weights brings.

Nagel et al. 2019, section 4.2: the expected error of a channel is (rounded - real weights) times the mean input,
measured here on the rows that calibrate.
"""

from collections.abc import Collection

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph.graph import Array, Graph, attributes
from compression_jobs.pipeline.graph.quant_calibrate import channel_means
from compression_jobs.pipeline.graph.quant_weights import WEIGHT_MAX, Granularity


def correct_biases(graph: Graph, rows: Array, granularity: Granularity, left: Collection[str] = ()) -> Graph:
    """A copy whose biases make up for the mean error of int8 weights; layers in `left` are not rounded."""
    fresh = graph.copy()
    rounded = [node for node in graph.nodes if node.op_type in ("Conv", "Gemm") and node.name not in left]
    layers = [node for node in rounded if _is_plain(graph, node)]
    means = channel_means(graph, rows, {str(node.input[0]) for node in layers})
    replaced: dict[str, list[NodeProto]] = {}
    for node in layers:
        weights, bias = graph.constant(node, 1), graph.constant(node, 2)
        assert weights is not None
        shift = mean_error(weights, means[node.input[0]], granularity)
        before = np.zeros(len(weights), np.float32) if bias is None else bias
        name = fresh.add_initializer(f"{node.name}_corrected_bias", (before - shift).astype(np.float32))
        moved = type(node)()
        moved.CopyFrom(node)
        del moved.input[2:]
        moved.input.append(name)
        replaced[node.name] = [moved]
    fresh.replace(replaced)
    return fresh


def mean_error(weights: Array, means: Array, granularity: Granularity) -> Array:
    """The mean of (rounded - real weights) times input, for each output channel."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    peaks = (
        np.abs(flat).max(axis=1) if granularity == "per_channel" else np.full(len(flat), np.abs(flat).max())
    )
    scales = (np.where(peaks > 0, peaks, 1.0) / WEIGHT_MAX)[:, None]
    error = np.rint(flat / scales) * scales - flat
    by_input = error.reshape(len(weights), weights.shape[1], -1).sum(axis=2)
    if weights.shape[1] == 1 and len(means) == len(weights):  # depthwise: each channel reads its own
        return np.asarray(by_input[:, 0] * means)
    return np.asarray(by_input @ means)


def _is_plain(graph: Graph, node: NodeProto) -> bool:
    weights, options = graph.constant(node, 1), attributes(node)
    computed_bias = len(node.input) > 2 and bool(node.input[2]) and graph.constant(node, 2) is None
    if weights is None or computed_bias:
        return False
    if node.op_type == "Gemm":
        return bool(options.get("transB", 0))
    groups = int(options.get("group", 1))
    one_each = groups == len(weights) and groups == graph.shapes[node.input[0]][1]
    return groups == 1 or (one_each and weights.shape[1] == 1)
