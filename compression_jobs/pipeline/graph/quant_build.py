"""Builds a QuantGraph from a canonical ONNX graph and the ranges of its tensors."""

from collections.abc import Mapping

from onnx import NodeProto

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quant_builder import Builder, PoisonedError, UnsupportedError
from compression_jobs.pipeline.graph.quant_operators import HANDLERS
from compression_jobs.pipeline.graph.quant_ranges import Range
from compression_jobs.pipeline.graph.quant_weights import Granularity
from compression_jobs.pipeline.graph.quantgraph import QuantGraph


def build(graph: Graph, ranges: Mapping[str, Range], granularity: Granularity) -> QuantGraph:
    """The QuantGraph of a canonical ONNX graph; raises Refused naming every node that cannot be quantised."""
    refuse_unquantizable(graph)
    builder = Builder(graph, ranges, granularity)
    source = graph.inputs[0].name
    builder.define(source, "onnx", builder.affine_of(source))
    builder.result.inputs.append(source)
    problems: list[str] = []
    for node in graph.nodes:
        if node.name in builder.done:
            continue
        try:
            HANDLERS[node.op_type](builder, node)
        except UnsupportedError as reason:
            problems.append(f"{node.name or node.output[0]}: {reason}")
        except PoisonedError:
            continue
    refuse_all(problems, _remedy())
    builder.result.outputs.append(builder.tensor(graph.outputs[0].name, "onnx").name)
    refuse_all(builder.result.problems(), "calibrate with other rows, or keep the model in float")
    return builder.result


def refuse_unquantizable(graph: Graph) -> None:
    """Raise Refused for what no calibration can help: several inputs, other dtypes, operators without int8 form."""
    _refuse_ports(graph)
    refuse_all([_unknown(node) for node in graph.nodes if node.op_type not in HANDLERS], _remedy())


def _refuse_ports(graph: Graph) -> None:
    for ports, what in ((graph.inputs, "inputs"), (graph.outputs, "outputs")):
        if len(ports) != 1:
            names = ", ".join(port.name for port in ports)
            raise Refused(
                f"int8 takes models with one input and one output; this one has {len(ports)} {what} ({names})"
            )
        if ports[0].dtype != "float32":
            raise Refused(f"int8 takes float32 {what}; {ports[0].name} is {ports[0].dtype}")


def _unknown(node: NodeProto) -> str:
    return f"{node.name or node.output[0]}: {node.op_type} has no int8 form here"


def _remedy() -> str:
    return "keep the model in float for onnxruntime, or replace these operators"
