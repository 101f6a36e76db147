"""Rewrites around hard sigmoid and hard swish (Howard et al. 2019, "Searching for MobileNetV3").

Exporters write them out in several ways; one operator each is smaller, and has an integer form.
"""

import math

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph.graph import Graph, attributes, make_node
from compression_jobs.pipeline.graph.rewrites.layers import (
    affine_to_conv,
    clip_bounds,
    fold_affine,
    replace_each,
)
from compression_jobs.pipeline.graph.rewrites.slopes import slopes_as_sums

SIXTH = 1 / 6


def find_hard_sigmoids(graph: Graph) -> bool:
    """Write Clip(x + 3, 0, 6) / 6 as HardSigmoid."""
    return replace_each(graph, ("Mul", "Div"), _hard_sigmoid)


def find_hard_swishes(graph: Graph) -> bool:
    """Write x * HardSigmoid(x) and x * Clip(x + 3, 0, 6) / 6 as HardSwish."""
    return replace_each(graph, ("Mul", "Div"), _hard_swish)


def integer_form(graph: Graph) -> Graph:
    """A copy of the graph in which constant factors, terms, slopes and hard sigmoids have become layers and Clips.

    What is split is sliced instead, because an operator of a QuantGraph has one result.
    """
    fresh = graph.copy()
    replace_each(fresh, "Split", _sliced)
    replace_each(fresh, "HardSigmoid", _written_out)
    slopes_as_sums(fresh)
    fold_affine(fresh)
    affine_to_conv(fresh)
    return fresh


def _hard_sigmoid(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    scaled = _sixth_of(graph, node)
    source = None if scaled is None else _six_times_gate(graph, scaled)
    if source is None:
        return None
    return [make_node("HardSigmoid", [source], list(node.output), node.name, alpha=SIXTH, beta=0.5)]


def _hard_swish(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    scaled = _sixth_of(graph, node)
    product = node if scaled is None else graph.producers.get(scaled)
    if product is None or product.op_type != "Mul" or len(set(product.input)) != 2:
        return None
    gate_of = _gate if scaled is None else _six_times_gate
    for source, gate in (tuple(product.input), tuple(reversed(product.input))):
        if gate_of(graph, gate) == source:
            return [make_node("HardSwish", [source], list(node.output), node.name)]
    return None


def _sixth_of(graph: Graph, node: NodeProto) -> str | None:
    """The tensor of which a Mul or Div takes the sixth part."""
    for position in (1, 0) if node.op_type == "Mul" else (1,):
        factor = _number(graph, node, position)
        if factor and math.isclose(factor if node.op_type == "Mul" else 1 / factor, SIXTH, rel_tol=1e-4):
            return str(node.input[1 - position])
    return None


def _six_times_gate(graph: Graph, name: str) -> str | None:
    """The x of a tensor that is Clip(x + 3, 0, 6)."""
    clip = graph.producers.get(name)
    if clip is None or clip.op_type != "Clip" or clip_bounds(graph, clip) != (0.0, 6.0):
        return None
    total = graph.producers.get(clip.input[0])
    if total is None or total.op_type != "Add":
        return None
    place = next((i for i in (1, 0) if _number(graph, total, i) == 3.0), None)
    return None if place is None else str(total.input[1 - place])


def _gate(graph: Graph, name: str) -> str | None:
    """The x of a tensor that is HardSigmoid(x) with the slope of hard swish."""
    node = graph.producers.get(name)
    if node is None or node.op_type != "HardSigmoid":
        return None
    slope, middle = slope_and_middle(node)
    return str(node.input[0]) if math.isclose(slope, SIXTH, rel_tol=1e-4) and middle == 0.5 else None


def slope_and_middle(node: NodeProto) -> tuple[float, float]:
    """`alpha` and `beta` of a HardSigmoid, ONNX's defaults where absent."""
    given = {entry.name: float(entry.f) for entry in node.attribute}
    return given.get("alpha", 0.2), given.get("beta", 0.5)


def _written_out(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """Clip(slope * x + middle, 0, 1)."""
    names = [graph.fresh_name(f"{node.name}_{part}") for part in ("scaled", "moved")]
    slope, middle, low, high = (
        graph.add_initializer(f"{node.name}_constant", np.array(value, np.float32))
        for value in (*slope_and_middle(node), 0.0, 1.0)
    )
    return [
        make_node("Mul", [node.input[0], slope], [names[0]], f"{node.name}_mul"),
        make_node("Add", [names[0], middle], [names[1]], f"{node.name}_add"),
        make_node("Clip", [names[1], low, high], list(node.output), node.name),
    ]


def _sliced(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    """A Slice for each part."""
    shape = graph.shapes.get(node.input[0])
    parts = [graph.shapes.get(name) for name in node.output]
    if shape is None:
        return None
    axis, start, slices = attributes(node).get("axis", 0) % len(shape), 0, []
    for position, (name, part) in enumerate(zip(node.output, parts, strict=True)):
        if part is None:
            return None
        window = [
            graph.add_initializer(f"{node.name}_{what}", np.array([value], np.int64))
            for what, value in (("start", start), ("end", start + part[axis]), ("axis", axis))
        ]
        slices.append(make_node("Slice", [node.input[0], *window], [name], f"{node.name}/{position}"))
        start += part[axis]
    return slices


def _number(graph: Graph, node: NodeProto, position: int) -> float | None:
    value = graph.constant(node, position)
    return float(value.item()) if value is not None and value.size == 1 else None
