"""ONNX to torch: a canonical graph becomes a Net that can be trained, checked against onnxruntime."""

import numpy as np
import torch
from onnx import NodeProto

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph.graph import Array, Graph
from compression_jobs.pipeline.graph.import_ops import IMPORTERS, UnsupportedError
from compression_jobs.pipeline.graph.net import Dense, Net, Op, Plain
from compression_jobs.pipeline.graph.running import ROWS_COMPARED, Reference, alike, random_feed

REMEDY = "use recipes without training for this model, or replace these operators"


def import_net(graph: Graph, rows: Array | None = None) -> Net:
    """The Net that computes what `graph` does; raises Refused naming every node that cannot be trained.

    `rows` are what both are compared on; without them seeded random rows are used.
    """
    source = _only_input(graph)
    net = Net(source, list(graph.inputs[0].shape[1:]), [port.name for port in graph.outputs])
    ops: list[Op] = []
    problems: list[str] = []
    for node in graph.nodes:
        try:
            ops.append(_imported(graph, node))
        except UnsupportedError as reason:
            problems.append(f"{node.name or node.output[0]}: {reason}")
    refuse_all(problems, REMEDY)
    net.set_ops(ops)
    net.constants = _constants_read(graph, ops)
    net.ranges = dict(graph.ranges)
    _take_biases(net)
    net.eval()
    _verify(net, graph, rows)
    return net


def _only_input(graph: Graph) -> str:
    if len(graph.inputs) != 1:
        names = ", ".join(port.name for port in graph.inputs)
        raise Refused(f"training takes models with one input; this one has {len(graph.inputs)} ({names})")
    return graph.inputs[0].name


def _imported(graph: Graph, node: NodeProto) -> Op:
    importer = IMPORTERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if importer is None:
        raise UnsupportedError(f"{node.op_type} cannot be trained here")
    missing = [name for name in (*node.input, *node.output) if name and name not in graph.shapes]
    if missing:
        raise UnsupportedError(f"the shape of {missing[0]} is not known")
    return importer(graph, node)


def _constants_read(graph: Graph, ops: list[Op]) -> dict[str, torch.Tensor]:
    read = {name for op in ops if isinstance(op, Plain) for name in op.inputs}
    return {
        name: torch.from_numpy(np.array(value)) for name, value in graph.initializers.items() if name in read
    }


def _take_biases(net: Net) -> None:
    """A constant added to a product behind it alone is its bias, which is trained with it."""
    for op in [op for op in net if isinstance(op, Dense) and not op.is_flat and net.used_once(op.output)]:
        reader = net.readers(op.output)[0]
        if isinstance(reader, Plain) and reader.op_type == "Add":
            added = net.constants.get(next((name for name in reader.inputs if name != op.output), ""))
            if added is not None and added.shape[-1:] == op.bias.shape and added.numel() == op.bias.numel():
                op.bias.data = added.reshape(-1).clone()
                op.outputs = list(reader.outputs)
                net.replace(reader, [])


def _verify(net: Net, graph: Graph, rows: Array | None) -> None:
    """Compare all outputs with onnxruntime, row by row, and once more as one batch."""
    if rows is None:
        rows = np.concatenate([random_feed([graph.inputs[0]])[net.source]])
    reference = Reference.of(graph, rows[:ROWS_COMPARED])
    batch = torch.from_numpy(np.array(reference.rows))
    with torch.no_grad():
        answers = [value.numpy() for value in net.values(batch, net.outputs)]
    for row, expected in enumerate(reference.answers):
        for port, wanted, made in zip(graph.outputs, expected, answers, strict=True):
            if not alike(wanted, made[row : row + 1]):
                raise Refused(
                    f"output {port.name} of the imported model differs from onnxruntime's",
                    remedy="use recipes without training for this model",
                )
