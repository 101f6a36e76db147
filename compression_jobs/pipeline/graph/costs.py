"""What a graph costs to run: multiply-accumulates a node, parameters, bytes of activations.

A MAC is one multiplication with its addition inside a convolution, dense layer, matrix product or recurrent
cell. Biases, activations, additions and pooling are not counted, as is usual for microcontrollers.
"""

from collections.abc import Callable
from math import prod

from onnx import NodeProto

from compression_jobs.pipeline.graph.graph import Graph, Shape, attributes

ITEM_BYTES = {"float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4, "float16": 2,
              "bfloat16": 2, "int16": 2, "uint16": 2}  # fmt: skip


def macs_by_node(graph: Graph) -> dict[str, int] | None:
    """MACs of each node that has any, by its first output; None while shapes it needs are not fixed."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        count = COUNTERS.get(node.op_type)
        if count is None:
            continue
        try:
            found[node.output[0]] = count(graph, node)
        except KeyError:  # a shape that is not fixed
            return None
    return found


def total_macs(graph: Graph) -> int | None:
    """MACs of one inference; None while the shapes are not fixed."""
    found = macs_by_node(graph)
    return None if found is None else sum(found.values())


def parameters(graph: Graph) -> int:
    """The number of trained values: constants of floats or small integers, bare numbers (bounds) left out."""
    kinds = ("float", "bfloat", "int8", "uint8", "int4", "uint4")
    constants = [tensor.name for tensor in graph.model.graph.initializer]
    return sum(
        prod(graph.shapes[n]) for n in constants if graph.shapes[n] and graph.dtypes[n].startswith(kinds)
    )


def activation_bytes(graph: Graph, item_bytes: int | None = None) -> dict[str, int]:
    """The bytes of every tensor made while running, and of the inputs; `item_bytes` replaces the element size."""
    names = [port.name for port in graph.inputs] + [
        name for node in graph.nodes for name in node.output if name
    ]
    return {
        name: prod(graph.shapes[name]) * (item_bytes or ITEM_BYTES.get(graph.dtypes[name], 1))
        for name in names
    }


def _convolution(graph: Graph, node: NodeProto) -> int:
    # A kernel of shape (out, in / groups, ...) is applied once for each place of the result.
    weights, result = graph.shapes[_weights_of(node)], graph.shapes[node.output[0]]
    return prod(result) * prod(weights[1:])


def _weights_of(node: NodeProto) -> str:
    return str(node.input[3 if node.op_type == "QLinearConv" else 1])


def _transposed(graph: Graph, node: NodeProto) -> int:
    weights, source = graph.shapes[node.input[1]], graph.shapes[node.input[0]]
    return prod(source) * prod(weights[1:])


def _matrix_product(graph: Graph, node: NodeProto) -> int:
    left: Shape = graph.shapes[node.input[0]]
    inner = left[0 if attributes(node).get("transA", 0) else -1] if left else 1
    return prod(graph.shapes[node.output[0]]) * inner


def _recurrent(graph: Graph, node: NodeProto) -> int:
    steps, batch, _ = graph.shapes[node.input[0]]
    weights, recurrence = graph.shapes[node.input[1]], graph.shapes[node.input[2]]
    return steps * batch * (prod(weights) + prod(recurrence))


COUNTERS: dict[str, Callable[[Graph, NodeProto], int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _convolution),
    "ConvTranspose": _transposed,
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"), _matrix_product),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}
