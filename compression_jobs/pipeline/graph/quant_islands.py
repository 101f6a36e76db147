"""Operators that stay in real numbers inside a QuantGraph: islands, which onnxruntime can run and devices cannot."""

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.graph import Graph, copy_of
from compression_jobs.pipeline.graph.quant_builder import Builder, UnsupportedError, name_of

OPSET = 17


def possible(graph: Graph, node: NodeProto) -> bool:
    """Whether the node reads and makes real numbers of known shape only, so that int8 can lie around it."""
    computed = _computed(graph, node)
    made = results(node)
    known = all(graph.dtypes.get(name) == "float32" and name in graph.shapes for name in [*computed, *made])
    return known and len(made) == 1 and bool(computed) and node.domain in ("", "ai.onnx")


def add(builder: Builder, node: NodeProto, reason: str) -> None:
    """Append the node as an island; raises UnsupportedError where int8 cannot lie around it."""
    if not possible(builder.graph, node):
        raise UnsupportedError(reason)
    (made,), names = results(node), _computed(builder.graph, node)
    sources = tuple(builder.tensor(name, "onnx").name for name in names)
    target = builder.define(made, "onnx", builder.affine_of(made))
    constants = {
        name: builder.graph.initializers[name] for name in node.input if name in builder.graph.initializers
    }
    builder.add(q.Island(name_of(node), sources, target.name, copy_of(node), tuple(names), constants, reason))


def model_of(graph: q.QuantGraph, island: q.Island) -> bytes:
    """The island alone as an ONNX model."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(graph.tensors[tensor].shape))
        for name, tensor in zip(island.names, island.inputs, strict=True)
    ]
    answer = helper.make_tensor_value_info(
        results(island.node)[0], TensorProto.FLOAT, list(graph.output_of(island).shape)
    )
    constants = [numpy_helper.from_array(np.array(array), name) for name, array in island.constants.items()]
    body = helper.make_graph([island.node], "island", ports, [answer], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


def results(node: NodeProto) -> list[str]:
    """The results of a node that have a name; optional ones may be left out."""
    return [str(name) for name in node.output if name]


def _computed(graph: Graph, node: NodeProto) -> list[str]:
    return [name for name in dict.fromkeys(node.input) if name and name not in graph.initializers]
