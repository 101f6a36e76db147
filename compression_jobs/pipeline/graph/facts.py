"""What a model is, as JSON for pages and checks; the one door for every uploaded `.onnx` and `.tflite`."""

from collections import Counter
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph import tflite_reading, tflite_variables
from compression_jobs.pipeline.graph.costs import parameters, total_macs
from compression_jobs.pipeline.graph.external import DataFiles, by_name
from compression_jobs.pipeline.graph.facts_tflite import describe_tflite, is_tflite, prove_it_runs
from compression_jobs.pipeline.graph.graph import FREE, Graph, Port, Shape, port_of
from compression_jobs.pipeline.graph.ingest import TIDY, fold_to_the_end, set_dims
from compression_jobs.pipeline.graph.limits import elements
from compression_jobs.pipeline.graph.reading import damage_refused, read_model
from compression_jobs.pipeline.graph.running import open_session, random_feed, run_once

QUANTISED = (
    "QLinear",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantize",
    "ConvInteger",
    "MatMulInteger",
)
RECURRENT = ("LSTM", "GRU", "RNN")


def describe_model(path: Path | str, data_paths: DataFiles = ()) -> dict[str, Any]:
    """Format, inputs, outputs, operators, costs and `problems` of a model file; raises Refused.

    `problems` are sentences about what the model can be stored and deployed with, but not compressed with.
    Run it through `run_limited`: a hostile model may crash the runtime that loads it.
    """
    path = Path(path)
    if is_tflite(path):
        facts = describe_tflite(path)
        if tflite_variables.SHAPES.keys() & facts["operators"].keys():
            refuse_all(
                tflite_variables.problems(tflite_reading.read(path.read_bytes())), tflite_variables.REMEDY
            )
        prove_it_runs(path)
        return facts
    graph = Graph(read_model(path, data_paths))
    with damage_refused("the model is damaged"):
        return _describe(graph) | {"bytes": path.stat().st_size + _data_bytes(data_paths)}


def _data_bytes(data_paths: DataFiles) -> int:
    return sum(data_file.stat().st_size for data_file in by_name(data_paths).values())


def _describe(graph: Graph) -> dict[str, Any]:
    operators = Counter(node.op_type for node in graph.nodes)
    model = graph.model
    facts = {
        "format": "onnx",
        "operators": dict(sorted(operators.items())),
        "opset": graph.opset,
        "producer": f"{model.producer_name} {model.producer_version}".strip()[:200],
    }
    for tidy in TIDY:
        tidy(graph)
    _refuse_half_floats(graph.inputs)
    facts |= {"inputs": _ports(graph.inputs), "outputs": _ports(graph.outputs)}
    facts |= {"quantised": bool(_of_kind(operators, QUANTISED)), "problems": _problems(graph, operators)}
    _prove_it_runs(graph)
    # Last, because it fixes the shapes.
    return facts | _costs(graph)


def _ports(ports: list[Port]) -> list[dict[str, Any]]:
    return [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in ports]


def _refuse_half_floats(inputs: list[Port]) -> None:
    halves = [
        f"input {port.name} is {port.dtype}" for port in inputs if port.dtype in ("float16", "bfloat16")
    ]
    if halves:
        raise Refused(" and ".join(halves), remedy="export the model in float32", problems=halves)
    if not inputs:
        raise Refused("the model has no input", remedy="export it with its input")


def _of_kind(operators: Counter[str], prefixes: tuple[str, ...]) -> list[str]:
    return sorted(op for op in operators if op.startswith(prefixes))


def _problems(graph: Graph, operators: Counter[str]) -> list[str]:
    problems = [
        f"input {port.name} has free dimensions {list(port.shape)}; the dataset must settle them"
        for port in graph.inputs
        if FREE in port.shape[1:]
    ]
    if len(graph.inputs) > 1:
        names = ", ".join(port.name for port in graph.inputs)
        problems.append(f"it has {len(graph.inputs)} inputs ({names}); compression takes models with one")
    if not any(port.dtype == "float32" for port in graph.inputs):
        problems.append(f"input {graph.inputs[0].name} is {graph.inputs[0].dtype}; compression takes float32")
    for kind, reason in (
        (QUANTISED, "it is already quantised ({}); it can be deployed as it is, not compressed again"),
        (RECURRENT, "it is recurrent ({}); it cannot be retrained, and only onnxruntime targets can run it"),
    ):
        found = _of_kind(operators, kind)
        if found:
            problems.append(reason.format(", ".join(found)))
    return problems


def _prove_it_runs(graph: Graph) -> None:
    """Load the model, and run it once where its input's shape is settled up to the batch."""
    for name, shape in graph.shapes.items():
        elements(shape, name)
    session = open_session(graph.to_bytes())
    ports = [port._replace(shape=_one_row(port.shape)) for port in graph.inputs]
    if all(FREE not in port.shape for port in ports):
        run_once(session, random_feed(ports))


def _one_row(shape: Shape) -> Shape:
    """The shape with a free batch settled to 1."""
    return (1, *shape[1:]) if shape[:1] == (FREE,) else shape


def _costs(graph: Graph) -> dict[str, int | None]:
    """Parameters, and MACs of one row (None while dimensions are free)."""
    counted = {"parameters": parameters(graph)}
    batch = graph.inputs[0].shape[0] if graph.inputs[0].shape else 1
    for value in graph.model.graph.input:
        set_dims(value, _one_row(port_of(value).shape))
    for value in graph.model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph.changed()
    fold_to_the_end(graph)
    macs = total_macs(graph)
    return counted | {"macs": None if macs is None else macs // max(batch, 1)}
