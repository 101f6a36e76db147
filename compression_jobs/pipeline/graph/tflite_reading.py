"""Reads a `.tflite` into plain records: tensors with their constants, operators with their options.

Every length and offset in the file may be a lie, so that fields are read one by one within limits; what goes
wrong inside the flatbuffer raises one of `facts_tflite.DAMAGE`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph import facts_tflite as facts
from compression_jobs.pipeline.graph.graph import FREE
from compression_jobs.pipeline.graph.limits import MAX_MODEL_BYTES

DTYPES = {"int8": "<i1", "uint8": "<u1", "int32": "<i4", "float32": "<f4"}
OPTIONS = {value: name for name, value in vars(schema.BuiltinOptions).items() if not name.startswith("_")}


@dataclass(frozen=True)
class Stored:
    """A tensor of the file: `values` are there for constants, scales and zero points for quantised ones."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: npt.NDArray[Any] | None
    scales: npt.NDArray[np.float64]
    zero_points: npt.NDArray[np.int64]
    axis: int


@dataclass(frozen=True)
class Node:
    """An operator of the file: its name there and its place, indices of tensors (-1 is absent), and its options."""

    kind: str
    label: str
    inputs: list[int]
    outputs: list[int]
    options: Any

    @property
    def variable(self) -> str:
        """What a VAR_HANDLE calls its variable."""
        names = (self.options.Container(), self.options.SharedName())
        return "/".join(name.decode("utf-8", "replace")[:200] for name in names if name)


@dataclass(frozen=True)
class TfliteModel:
    """The first subgraph of a file, how many there are, and the constants that others give to variables once."""

    tensors: list[Stored]
    nodes: list[Node]
    inputs: list[int]
    outputs: list[int]
    subgraphs: int
    starts: dict[str, Stored]
    called: set[int]  # subgraphs that only give variables their first values


def read(content: bytes) -> TfliteModel:
    """The records of a file; raises Refused when it is damaged."""
    if len(content) > MAX_MODEL_BYTES:
        raise Refused(f"the model has {len(content)} bytes; at most {MAX_MODEL_BYTES} are accepted")
    if content[4:8] != facts.IDENTIFIER:
        raise Refused("the file is no .tflite", remedy="give a model that a TFLite converter wrote")
    try:
        return _read(content)
    except facts.DAMAGE as error:
        raise Refused(facts.DAMAGED, remedy="convert the model again") from error


def _read(content: bytes) -> TfliteModel:
    model = schema.Model.GetRootAs(content, 0)
    if not 1 <= model.SubgraphsLength() <= facts.MAX_SUBGRAPHS:
        raise Refused(facts.DAMAGED + f": it has {model.SubgraphsLength()} subgraphs")
    stored, nodes, (inputs, outputs) = _subgraph(model, 0)
    called = {node.options.InitSubgraphIndex() for node in nodes if node.kind == "CALL_ONCE"}
    starts: dict[str, Stored] = {}
    for index in sorted(called):
        if not 1 <= index < model.SubgraphsLength():
            raise Refused(f"CALL_ONCE calls subgraph {index}, of {model.SubgraphsLength()}")
        _add_starts(starts, *_subgraph(model, index)[:2])
    return TfliteModel(stored, nodes, inputs, outputs, model.SubgraphsLength(), starts, called)


def _subgraph(model: Any, index: int) -> tuple[list[Stored], list[Node], list[list[int]]]:
    """Tensors, operators, and inputs and outputs of a subgraph."""
    graph = model.Subgraphs(index)
    known = facts.tensors(model, graph)
    stored = [_stored(model, graph.Tensors(place), each) for place, each in enumerate(known)]
    nodes = [
        _node(graph.Operators(position), position, each)
        for position, each in enumerate(facts.operators(model, graph))
    ]
    ends = [
        facts.indices(length, at)
        for length, at in ((graph.InputsLength(), graph.Inputs), (graph.OutputsLength(), graph.Outputs))
    ]
    _refuse_dangling(len(stored), nodes, ends)
    return stored, nodes, ends


def _add_starts(starts: dict[str, Stored], stored: list[Stored], nodes: list[Node]) -> None:
    """The constants that a subgraph assigns to variables; raises Refused for anything else that it does."""
    handles: dict[int, str] = {}
    problems = []
    for node in nodes:
        if node.kind == "VAR_HANDLE" and len(node.outputs) == 1:
            handles[node.outputs[0]] = node.variable
        elif node.kind != "ASSIGN_VARIABLE" or len(node.inputs) != 2 or node.inputs[0] not in handles:
            problems.append(
                f"{node.label}: a subgraph that is called once may only give constants to variables"
            )
        elif handles[node.inputs[0]] in starts:
            problems.append(f"{node.label}: variable {handles[node.inputs[0]]} is given two first values")
        elif stored[node.inputs[1]].values is None:
            problems.append(f"{node.label}: the first value of {handles[node.inputs[0]]} is no constant")
        else:
            starts[handles[node.inputs[0]]] = stored[node.inputs[1]]
    refuse_all(problems, "convert the model with variables that start as constants")


def _refuse_dangling(count: int, nodes: list[Node], ends: list[list[int]]) -> None:
    given = [index for node in nodes for index in (*node.outputs, *ends[0], *ends[1])]
    read_ones = [index for node in nodes for index in node.inputs]
    if any(not 0 <= index < count for index in given) or any(not -1 <= index < count for index in read_ones):
        raise Refused(facts.DAMAGED + ": an operator names a tensor that is not there")


def _stored(model: Any, tensor: Any, known: facts.TensorFacts) -> Stored:
    quantization = tensor.Quantization()
    scales, zero_points, axis = np.zeros(0), np.zeros(0, np.int64), 0
    if quantization is not None and quantization.ScaleLength():
        scales = quantization.ScaleAsNumpy().astype(np.float64)
        zero_points = np.zeros(scales.size, np.int64)
        if quantization.ZeroPointLength():
            zero_points = quantization.ZeroPointAsNumpy().astype(np.int64)
        axis = int(quantization.QuantizedDimension())
    # A batch that is free has one row here, as on devices.
    shape = tuple(1 if size == FREE else size for size in known.shape)
    return Stored(
        known.name, known.dtype, shape, _values(model, tensor, known, shape), scales, zero_points, axis
    )


def _values(
    model: Any, tensor: Any, known: facts.TensorFacts, shape: tuple[int, ...]
) -> npt.NDArray[Any] | None:
    if not known.constant or known.dtype not in DTYPES or tensor.Sparsity() is not None:
        return None
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    return np.frombuffer(data.tobytes(), DTYPES[known.dtype]).reshape(shape)


def _node(operator: Any, position: int, known: facts.OperatorFacts) -> Node:
    options, table = None, operator.BuiltinOptions()
    kind = OPTIONS.get(operator.BuiltinOptionsType(), "NONE")
    if table is not None and kind != "NONE":
        options = getattr(schema, kind)()
        options.Init(table.Bytes, table.Pos)
    label = f"{known.op}_{position}"
    return Node(known.op, label, known.inputs, known.outputs, options)
