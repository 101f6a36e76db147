"""Operators that stay in real numbers inside a QuantGraph: islands, which onnxruntime can run and devices cannot."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compression_jobs.pipeline.errors import refuse_all
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.graph import Graph, copy_of
from compression_jobs.pipeline.graph.quant_builder import Builder, UnsupportedError, name_of

OPSET = 17
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOST_NAMED = 40
LEFT = "the recipe leaves it in float"


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
    nodes = (copy_of(node),)
    builder.add(q.Island(name_of(node), sources, target.name, nodes, tuple(names), constants, reason))


def model_of(graph: q.QuantGraph, island: q.Island) -> bytes:
    """The island alone as an ONNX model."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(graph.tensors[tensor].shape))
        for name, tensor in zip(island.names, island.inputs, strict=True)
    ]
    answer = helper.make_tensor_value_info(
        results(island.nodes[-1])[0], TensorProto.FLOAT, list(graph.output_of(island).shape)
    )
    constants = [numpy_helper.from_array(np.array(array), name) for name, array in island.constants.items()]
    body = helper.make_graph(island.nodes, "island", ports, [answer], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


def merge(graph: q.QuantGraph) -> None:
    """Join islands that lie behind each other, so that nothing is rounded between them."""
    for later in [op for op in graph.ops if isinstance(op, q.Island)]:
        joined = later
        for earlier in [op for op in graph.ops if isinstance(op, q.Island)]:
            if earlier is not later and _leads_only_to(graph, earlier, joined):
                joined = _joined(graph, earlier, joined)


def _leads_only_to(graph: q.QuantGraph, earlier: q.Island, later: q.Island) -> bool:
    """Whether only `later` reads what `earlier` makes, and under the name that it was made as."""
    readers = [op for op in graph.ops if earlier.output in op.inputs]
    as_made = dict(zip(later.inputs, later.names, strict=True)).get(earlier.output)
    return (
        readers == [later]
        and as_made == results(earlier.nodes[-1])[0]
        and earlier.output not in graph.outputs
    )


def _joined(graph: q.QuantGraph, earlier: q.Island, later: q.Island) -> q.Island:
    ports = dict(zip(earlier.inputs, earlier.names, strict=True))
    ports |= {t: n for t, n in zip(later.inputs, later.names, strict=True) if t != earlier.output}
    reasons = dict.fromkeys((earlier.reason, later.reason))
    both = replace(
        later,
        reason="; ".join(reasons),
        name=f"{earlier.name}, {later.name}",
        nodes=(*earlier.nodes, *later.nodes),
        inputs=tuple(ports),
        names=tuple(ports.values()),
        constants={**earlier.constants, **later.constants},
    )
    graph.ops[:] = [both if op is later else op for op in graph.ops if op is not earlier]
    del graph.tensors[earlier.output]
    return both


def behind(graph: Graph, layers: Collection[str]) -> set[str]:
    """The named layers, and what reads their results up to the next layers, those included: all that stays in float."""
    weighted = [node.name for node in graph.nodes if node.op_type in LAYERS]
    unknown = [name for name in layers if name not in weighted]
    refuse_all(
        [f"{name}: there is no such layer to leave in float" for name in unknown],
        f"this model has {', '.join(weighted[:MOST_NAMED])}",
    )
    float_tensors: set[str] = set()
    found = set()
    for node in graph.nodes:
        if node.name in layers or float_tensors.intersection(node.input):
            found.add(node.name)
            if node.name in layers or node.op_type not in LAYERS:
                float_tensors.update(node.output)
    return found


def results(node: NodeProto) -> list[str]:
    """The results of a node that have a name; optional ones may be left out."""
    return [str(name) for name in node.output if name]


def _computed(graph: Graph, node: NodeProto) -> list[str]:
    return [name for name in dict.fromkeys(node.input) if name and name not in graph.initializers]
