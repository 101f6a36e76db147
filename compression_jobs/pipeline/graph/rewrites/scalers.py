"""Rewrites for the scaling that scikit-learn's pipelines put in front of a model."""

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph.graph import Array, Graph, attributes, make_node
from compression_jobs.pipeline.graph.rewrites.layers import AFFINE, replace_each, scale_and_shift


def plain_scalers(graph: Graph) -> bool:
    """Write ai.onnx.ml's Scaler on floats as a difference and a product."""
    return replace_each(graph, "Scaler", _difference_and_product)


def _difference_and_product(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    options = attributes(node)
    if graph.dtypes.get(node.input[0]) != "float32" or not {"offset", "scale"} <= options.keys():
        return None
    names = [
        graph.add_initializer(f"{node.name}_{what}", np.array([options[what]], np.float32))
        for what in ("offset", "scale")
    ]
    moved = graph.fresh_name(f"{node.name}_moved")
    return [
        make_node("Sub", [node.input[0], names[0]], [moved], graph.fresh_name(f"{node.name}_sub")),
        make_node("Mul", [moved, names[1]], list(node.output), graph.fresh_name(f"{node.name}_mul")),
    ]


def fold_into_dense(graph: Graph) -> bool:
    """Fold scales and terms, also of BatchNormalization, into the dense layer behind them, one after the other."""
    folded = False
    for node in reversed(graph.nodes):
        match = scale_and_shift(graph, node) if node.op_type in (*AFFINE, "BatchNormalization") else None
        readers = graph.consumers.get(node.output[0], [])
        if match is None or not graph.used_once(node.output[0]) or readers[0].op_type != "Gemm":
            continue
        fresh = _behind(graph, readers[0], *match)
        if fresh is not None:
            graph.replace({node.name: [], readers[0].name: [fresh]})
            folded = True
    return folded


def _behind(graph: Graph, layer: NodeProto, source: str, scale: Array, shift: Array) -> NodeProto | None:
    weights, bias, options = graph.constant(layer, 1), graph.constant(layer, 2), attributes(layer)
    if weights is None or bias is None or not options.get("transB", 0):
        return None
    if weights.shape[1] != len(scale) or options.get("alpha", 1.0) != 1.0 or options.get("beta", 1.0) != 1.0:
        return None
    added = bias + weights.astype(np.float64) @ shift
    names = [
        graph.add_initializer(f"{layer.name}_{what}", values.astype(np.float32))
        for what, values in (("weights", weights * scale), ("bias", added))
    ]
    return make_node("Gemm", [source, *names], list(layer.output), layer.name, transB=1)
