"""Rewrites of PRelu (He et al. 2015, "Delving Deep into Rectifiers"), the relu whose slope below zero is learned."""

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph.graph import Array, Graph, make_node
from compression_jobs.pipeline.graph.rewrites.layers import per_channel, replace_each


def shared_slopes(graph: Graph) -> bool:
    """Write a PRelu whose channels share one slope from 0 up as LeakyRelu."""
    return replace_each(graph, "PRelu", _leaky)


def slopes_as_sums(graph: Graph) -> bool:
    """Write a PRelu with a slope s for each channel as s x + (1 - s) relu(x), whose parts have integer forms."""
    return replace_each(graph, "PRelu", _sum)


def _leaky(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    slopes = graph.constant(node, 1)
    if slopes is None or slopes.size == 0 or slopes.min() != slopes.max() or slopes.min() < 0:
        return None
    alpha = float(slopes.reshape(-1)[0])
    return [make_node("LeakyRelu", [node.input[0]], list(node.output), node.name, alpha=alpha)]


def _sum(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    slopes, shape = graph.constant(node, 1), graph.shapes.get(node.input[0])
    values = None if slopes is None or shape is None else per_channel(slopes, shape)
    if values is None or shape is None:
        return None
    lit = graph.fresh_name(f"{node.name}_lit")
    parts = [
        _scaled(graph, source, f"{node.name}_{what}", factors.reshape(-1, *[1] * (len(shape) - 2)))
        for source, what, factors in ((node.input[0], "slope", values), (lit, "rest", 1 - values))
    ]
    made = [part.output[0] for part in parts]
    first = make_node("Relu", [node.input[0]], [lit], lit)
    return [first, *parts, make_node("Add", made, list(node.output), node.name)]


def _scaled(graph: Graph, source: str, base: str, factors: Array) -> NodeProto:
    name = graph.fresh_name(base)
    constant = graph.add_initializer(f"{base}_factors", factors.astype(np.float32))
    return make_node("Mul", [source, constant], [name], name)
