"""Cross-layer equalisation: neighbouring layers exchange scale until their channels have ranges alike.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1. Scaling a
channel down before a relu and up again after it changes nothing in floats, and much in int8 with one scale a tensor.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph.graph import Array, Graph, attributes
from compression_jobs.pipeline.graph.ingest import checked
from compression_jobs.pipeline.graph.running import ROWS_COMPARED, Reference
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import NoOptions

ROUNDS = 20
ENOUGH = 1e-3
# What can be passed by a positive factor a channel. Relu6 cannot: its ceiling would have to move.
LETS_SCALES_THROUGH = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")


@dataclass(frozen=True)
class Pair:
    """A layer and the only one that reads it; each channel of the first is `repeat` inputs of the second."""

    first: NodeProto
    second: NodeProto
    repeat: int


def equalize(graph: Graph, options: NoOptions, material: Material) -> Graph:
    """The graph with channel ranges equalised, checked on calibration rows; the outputs stay."""
    reference = Reference.of(graph, material.calibration[:ROWS_COMPARED])
    return checked(graph.copy(), equalize_pairs, reference)


def equalize_pairs(graph: Graph) -> bool:
    """Equalise all pairs of layers until nothing moves; says whether there were any."""
    pairs = list(_pairs(graph))
    names = {name for pair in pairs for node in (pair.first, pair.second) for name in node.input[1:3] if name}
    values = {name: graph.initializers[name].astype(np.float64) for name in names}
    for _ in range(ROUNDS):
        if max((_equalize(pair, values) for pair in pairs), default=0.0) < ENOUGH:
            break
    for name, value in values.items():
        graph.set_initializer(name, value.astype(np.float32))
    return bool(pairs)


def _pairs(graph: Graph) -> Iterator[Pair]:
    for node in graph.nodes:
        reader = _only_reader(graph, node) if _is_layer(graph, node) else None
        repeat = 1
        while reader is not None and (reader.op_type in LETS_SCALES_THROUGH or reader.op_type == "Reshape"):
            if reader.op_type == "Reshape":
                repeat *= _columns_a_channel(graph, reader)
            reader = _only_reader(graph, reader) if repeat else None
        if reader is not None and _is_layer(graph, reader):
            yield Pair(node, reader, repeat)


def _only_reader(graph: Graph, node: NodeProto) -> NodeProto | None:
    name = node.output[0]
    return graph.consumers[name][0] if len(node.output) == 1 and graph.used_once(name) else None


def _columns_a_channel(graph: Graph, node: NodeProto) -> int:
    """How many columns one channel becomes when a picture is flattened; 0 when it does not stay together."""
    before, after = graph.shapes[node.input[0]], graph.shapes[node.output[0]]
    flat = len(before) >= 2 and len(after) == 2 and before[0] == after[0]
    return after[1] // before[1] if flat else 0


def _is_layer(graph: Graph, node: NodeProto) -> bool:
    options, weights = attributes(node), graph.constant(node, 1)
    if weights is None or (len(node.input) > 2 and graph.constant(node, 2) is None):
        return False
    # Weights that two layers share cannot be scaled for one of them.
    if any(len(graph.consumers[name]) > 1 for name in node.input[1:] if name):
        return False
    if node.op_type == "Conv":
        return options.get("group", 1) in (1, weights.shape[0])
    return node.op_type == "Gemm" and bool(options.get("transB", 0))


def _equalize(pair: Pair, values: dict[str, Array]) -> float:
    """Scale one pair so that both sides of each channel have the same range; returns how far that moved."""
    first, second = values[pair.first.input[1]], values[pair.second.input[1]]
    depthwise = attributes(pair.second).get("group", 1) > 1
    columns = second if depthwise else np.moveaxis(second, 1, 0)
    made = np.abs(first.reshape(len(first), -1)).max(axis=1)
    read = np.abs(columns.reshape(len(first), -1)).max(axis=1)
    alive = (made > 0) & (read > 0)
    scale = np.where(alive, np.sqrt(made * read) / np.where(alive, read, 1), 1.0)
    scale = np.where(alive, scale, 1.0)
    first /= scale.reshape(-1, *[1] * (first.ndim - 1))
    if len(pair.first.input) > 2:
        values[pair.first.input[2]] /= scale
    factor = np.repeat(scale, pair.repeat).reshape(-1, *[1] * (columns.ndim - 1))
    columns *= factor  # a view of the second layer's weights
    return float(np.abs(np.log(scale)).max())
