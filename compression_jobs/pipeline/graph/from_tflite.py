"""Imports a ready int8 `.tflite` into a QuantGraph, so that it reaches every runtime."""

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph import tflite_states, tflite_variables
from compression_jobs.pipeline.graph.facts_tflite import DAMAGE, DAMAGED
from compression_jobs.pipeline.graph.quant_shapes import shape_problems
from compression_jobs.pipeline.graph.tflite_importer import Importer, PoisonedError, UnsupportedError
from compression_jobs.pipeline.graph.tflite_operators import HANDLERS
from compression_jobs.pipeline.graph.tflite_reading import Node, TfliteModel, read

REMEDY = "convert the model with full integer quantisation to these built-in operators, or deploy the .tflite as it is"
# They only work out shapes, which stand in the file as well.
SHAPE_ARITHMETIC = ("int32", "int64")


def from_tflite(content: bytes) -> q.QuantGraph:
    """The QuantGraph of an int8 `.tflite`; raises Refused naming every operator that has no place in one.

    Numbers at the edges become int8: quantize and dequantize there belong to whoever calls the model.
    """
    model = read(content)
    try:
        return _imported(model)
    except DAMAGE as error:
        raise Refused(DAMAGED, remedy="convert the model again") from error


def _imported(model: TfliteModel) -> q.QuantGraph:
    nodes = [
        node
        for node in model.nodes
        if node.kind != tflite_states.SET_UP and not _is_shape_arithmetic(model, node)
    ]
    refuse_all(
        [f"{node.label}: {node.kind} has no int8 form here" for node in nodes if node.kind not in HANDLERS],
        REMEDY,
    )
    others = model.subgraphs - 1 - len(model.called)
    if others:
        raise Refused(
            f"the model has {others} subgraphs that do more than give variables their first values",
            remedy="convert it with one signature and without control flow",
        )
    importer = Importer(model, nodes)
    problems = [*tflite_variables.problems(model), *importer.open_edges()]
    for node in importer.inner_nodes():
        try:
            importer.refuse_batches(node)
            HANDLERS[node.kind](importer, node)
        except UnsupportedError as reason:
            problems.append(f"{node.label}: {reason}")
            importer.go_on_behind(node)
        except PoisonedError:
            importer.go_on_behind(node)
    problems += importer.close_edges()
    refuse_all(problems, REMEDY)
    tflite_states.add_states(importer)
    graph = importer.graph
    refuse_all([*shape_problems(graph), *graph.problems()], "convert the model again")
    if not graph.ops or not graph.outputs:
        raise Refused("the model computes nothing", remedy=REMEDY)
    return graph


def _is_shape_arithmetic(model: TfliteModel, node: Node) -> bool:
    return bool(node.outputs) and all(
        model.tensors[index].dtype in SHAPE_ARITHMETIC for index in node.outputs
    )
