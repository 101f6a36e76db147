"""Builds a QuantGraph from a canonical ONNX graph and the ranges of its tensors."""

from collections.abc import Collection, Mapping

from onnx import NodeProto

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph import quant_islands
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quant_builder import Builder, PoisonedError, UnsupportedError, name_of
from compression_jobs.pipeline.graph.quant_operators import HANDLERS
from compression_jobs.pipeline.graph.quant_ranges import Range
from compression_jobs.pipeline.graph.quant_weights import Granularity
from compression_jobs.pipeline.graph.quantgraph import QuantGraph

REMEDY = "keep the model in float for onnxruntime, or replace these operators"


def build(
    graph: Graph, ranges: Mapping[str, Range], granularity: Granularity, float_layers: Collection[str] = ()
) -> QuantGraph:
    """The QuantGraph of a canonical ONNX graph; operators without int8 form become islands of real numbers.

    So do `float_layers`, and what lies behind them up to the next layers. Raises Refused naming every node that can
    be neither.
    """
    left = quant_islands.behind(graph, float_layers)
    refuse_unquantizable(graph)
    builder = Builder(graph, ranges, granularity)
    source = graph.inputs[0].name
    builder.define(source, "onnx", builder.affine_of(source))
    builder.result.inputs.append(source)
    problems = [problem for node in graph.nodes for problem in _added(builder, node, left)]
    refuse_all(problems, REMEDY)
    builder.result.outputs.append(builder.tensor(graph.outputs[0].name, "onnx").name)
    refuse_all(builder.result.problems(), "calibrate with other rows, or keep the model in float")
    quant_islands.merge(builder.result)
    if not any(builder.result.weighted()):
        builder.result.refuse_islands()  # int8 would save nothing
    return builder.result


def refuse_unquantizable(graph: Graph) -> None:
    """Raise Refused for what no calibration can help: several inputs, other dtypes, operators without int8 form."""
    _refuse_ports(graph)
    strange = [node for node in graph.nodes if node.op_type not in HANDLERS]
    refuse_all([_unknown(node) for node in strange if not quant_islands.possible(graph, node)], REMEDY)


def _refuse_ports(graph: Graph) -> None:
    for ports, what in ((graph.inputs, "inputs"), (graph.outputs, "outputs")):
        if len(ports) != 1:
            names = ", ".join(port.name for port in ports)
            raise Refused(
                f"int8 takes models with one input and one output; this one has {len(ports)} {what} ({names})"
            )
        if ports[0].dtype != "float32":
            raise Refused(f"int8 takes float32 {what}; {ports[0].name} is {ports[0].dtype}")


def _added(builder: Builder, node: NodeProto, left: Collection[str]) -> list[str]:
    """Add a node, as an island if it must be; why it can be neither, if so."""
    if node.name in builder.done:
        return []
    fused = set(builder.done)
    try:
        handler = HANDLERS.get(node.op_type)
        if handler is None:
            raise UnsupportedError(f"{node.op_type} has no int8 form here")
        if node.name in left and quant_islands.possible(builder.graph, node):
            raise UnsupportedError(quant_islands.LEFT)
        handler(builder, node)
    except UnsupportedError as reason:
        builder.done = fused
        try:
            quant_islands.add(builder, node, str(reason))
        except UnsupportedError:
            return [f"{name_of(node)}: {reason}"]
        except PoisonedError:
            return []
    except PoisonedError:
        return []
    return []


def _unknown(node: NodeProto) -> str:
    return f"{name_of(node)}: {node.op_type} has no int8 form here"
