"""What a ready `.tflite` is; read field by field, because every length in the file may be a lie."""

import struct
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph.costs import ITEM_BYTES
from compression_jobs.pipeline.graph.graph import FREE, Shape
from compression_jobs.pipeline.graph.limits import MAX_MODEL_BYTES, MAX_NODES, MAX_RANK, elements

IDENTIFIER = b"TFL3"
MAX_SUBGRAPHS = 16
MAX_EDGES = 64
STREAMS = (
    "it keeps {kept} bytes from one run to the next: a row of its dataset is a stream of inputs, judged by the answer to the "
    "last one; targets with onnxruntime cannot run it"
)
DAMAGED = "the .tflite file is damaged"
CONTROL_FLOW = ("IF", "WHILE", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE")
NAMES_OF_TYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}
NAMES_OF_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}

# What walking a damaged flatbuffer raises.
DAMAGE = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    AttributeError,
    AssertionError,
)


class TensorFacts(NamedTuple):
    """The fields of a flatbuffer tensor that facts need."""

    name: str
    dtype: str
    shape: Shape
    constant: bool
    scale: float | None
    zero_point: int | None

    def as_port(self) -> dict[str, Any]:
        """This tensor as an input or output of the model."""
        port: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        return port | {"scale": self.scale, "zero_point": self.zero_point}


class OperatorFacts(NamedTuple):
    """An operator by name, with the indices of its tensors."""

    op: str
    inputs: list[int]
    outputs: list[int]


def is_tflite(path: Path) -> bool:
    """Whether the file says that it is a `.tflite`."""
    with open(path, "rb") as file:
        return file.read(8)[4:] == IDENTIFIER


def describe_tflite(path: Path) -> dict[str, Any]:
    """The facts of `describe_model` for a `.tflite`; raises Refused."""
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise Refused(f"the model has {path.stat().st_size} bytes; at most {MAX_MODEL_BYTES} are accepted")
    content = path.read_bytes()
    try:
        return _describe(content)
    except DAMAGE as error:
        raise Refused(DAMAGED, remedy="convert the model again") from error


def _describe(content: bytes) -> dict[str, Any]:
    model = schema.Model.GetRootAs(content, 0)
    if not 1 <= model.SubgraphsLength() <= MAX_SUBGRAPHS:
        raise Refused(DAMAGED + f": it has {model.SubgraphsLength()} subgraphs")
    graph = model.Subgraphs(0)
    found, operated = tensors(model, graph), operators(model, graph)
    _refuse_unusable([*operated, *_called_once(model, graph)])
    inputs = [found[index] for index in indices(graph.InputsLength(), graph.Inputs)]
    outputs = [found[index] for index in indices(graph.OutputsLength(), graph.Outputs)]
    if not inputs or not outputs:
        raise Refused("the model has no input or no output", remedy="convert it again")
    counts = Counter(operator.op for operator in operated)
    kept = _state_bytes(graph, found, operated)
    return {
        "format": "tflite",
        "inputs": [tensor.as_port() for tensor in inputs],
        "outputs": [tensor.as_port() for tensor in outputs],
        "operators": dict(sorted(counts.items())),
        "parameters": sum(prod(t.shape) for t in found if t.constant and not t.dtype.startswith("int64")),
        "macs": sum(_macs(operator, found) for operator in operated),
        "opset": None,
        "producer": (model.Description() or b"").decode("utf-8", "replace")[:200],
        "bytes": len(content),
        "quantised": any(t.dtype in ("int8", "uint8", "int16") for t in found if not t.constant),
        "state_bytes": kept,
        "problems": [
            "it is a ready .tflite; it can be measured and deployed as it is, not compressed again",
            *([STREAMS.format(kept=kept)] if kept else []),
        ],
    }


def keeps_state(path: Path) -> bool:
    """Whether a run of the `.tflite` leaves something to the next one; raises Refused for a damaged file."""
    try:
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        graph = model.Subgraphs(0)
        return _state_bytes(graph, tensors(model, graph), operators(model, graph)) > 0
    except DAMAGE as error:
        raise Refused(DAMAGED, remedy="convert the model again") from error


def _state_bytes(graph: Any, found: list[TensorFacts], operated: list[OperatorFacts]) -> int:
    """What is kept between runs: variables that are read, and tensors that recurrent operators keep."""
    read = {
        operator.inputs[0]: operator.outputs[0] for operator in operated if operator.op == "READ_VARIABLE"
    }
    kept = [found[index] for index in read.values()]
    kept += [tensor for index, tensor in enumerate(found) if graph.Tensors(index).IsVariable()]
    return sum(abs(prod(tensor.shape)) * ITEM_BYTES.get(tensor.dtype, 1) for tensor in kept)


def _called_once(model: Any, graph: Any) -> list[OperatorFacts]:
    """The operators of the subgraphs that give variables their first values."""
    found: list[OperatorFacts] = []
    for place, operator in enumerate(operators(model, graph)):
        if operator.op == "CALL_ONCE":
            options, table = schema.CallOnceOptions(), graph.Operators(place).BuiltinOptions()
            options.Init(table.Bytes, table.Pos)
            index = options.InitSubgraphIndex()
            if not 1 <= index < model.SubgraphsLength():
                raise Refused(f"CALL_ONCE calls subgraph {index}, of {model.SubgraphsLength()}")
            found += operators(model, model.Subgraphs(index))
    return found


def indices(length: int, read: Any) -> list[int]:
    """A list of tensors; raises Refused for one that is too long."""
    if length > MAX_EDGES:
        raise Refused(
            f"an operator or the model names {length} tensors at once; at most {MAX_EDGES} are accepted"
        )
    return [int(read(position)) for position in range(length)]


def tensors(model: Any, graph: Any) -> list[TensorFacts]:
    """Every tensor of a subgraph; raises Refused for too many, or too many dimensions."""
    if graph.TensorsLength() > 4 * MAX_NODES:
        raise Refused(f"the model has {graph.TensorsLength()} tensors; at most {4 * MAX_NODES} are accepted")
    return [_tensor(model, graph.Tensors(index)) for index in range(graph.TensorsLength())]


def _tensor(model: Any, tensor: Any) -> TensorFacts:
    name = (tensor.Name() or b"").decode("utf-8", "replace")[:200]
    rank = tensor.ShapeLength()
    if rank > MAX_RANK:
        raise Refused(f"it has {rank} dimensions; at most {MAX_RANK} are accepted", node=name)
    shape = tuple(int(tensor.Shape(axis)) for axis in range(rank))
    elements(shape, name)
    if tensor.ShapeSignatureLength() == rank:
        signature = [int(tensor.ShapeSignature(axis)) for axis in range(rank)]
        shape = tuple(FREE if free == -1 else size for size, free in zip(shape, signature, strict=True))
    index, quantization = tensor.Buffer(), tensor.Quantization()
    constant = 0 < index < model.BuffersLength() and model.Buffers(index).DataLength() > 0
    single = quantization is not None and quantization.ScaleLength() == 1 == quantization.ZeroPointLength()
    scale = float(quantization.Scale(0)) if single else None
    zero_point = int(quantization.ZeroPoint(0)) if single else None
    return TensorFacts(name, NAMES_OF_TYPES[tensor.Type()], shape, constant, scale, zero_point)


def operators(model: Any, graph: Any) -> list[OperatorFacts]:
    """Every operator of a subgraph; raises Refused for too many."""
    count = graph.OperatorsLength()
    if not 0 < count <= MAX_NODES or model.OperatorCodesLength() > MAX_NODES:
        raise Refused(f"the model has {count} operators; 1 to {MAX_NODES} are accepted")
    return [_operator(model, graph.Operators(index)) for index in range(count)]


def _operator(model: Any, operator: Any) -> OperatorFacts:
    if operator.OpcodeIndex() >= model.OperatorCodesLength():
        raise Refused(DAMAGED + ": an operator without a code")
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Old files keep small codes in the deprecated field only.
    op = NAMES_OF_OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    if op == "CUSTOM":
        op = "CUSTOM " + (code.CustomCode() or b"").decode("utf-8", "replace")[:100]
    inputs = indices(operator.InputsLength(), operator.Inputs)
    return OperatorFacts(op, inputs, indices(operator.OutputsLength(), operator.Outputs))


def _refuse_unusable(operators: list[OperatorFacts]) -> None:
    ops = sorted({operator.op for operator in operators})
    obstacles = {
        "use built-in operators only": [f"{op}: custom operator" for op in ops if op.startswith("CUSTOM")],
        "convert the model for one fixed path": [f"{op}: control flow" for op in ops if op in CONTROL_FLOW],
    }
    problems = [problem for found in obstacles.values() for problem in found]
    refuse_all(problems, "; ".join(remedy for remedy, found in obstacles.items() if found))


def _macs(operator: OperatorFacts, tensors: list[TensorFacts]) -> int:
    """MACs of one row; weights are (out, h, w, in), depthwise (1, h, w, out), dense (out, in)."""
    if operator.op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        return 0
    weights = tensors[operator.inputs[1]].shape
    source = tensors[operator.inputs[2 if operator.op == "TRANSPOSE_CONV" else 0]].shape
    result = tensors[operator.outputs[0]].shape
    if operator.op == "TRANSPOSE_CONV":
        return abs(prod(source[1:])) * prod(weights[:3])
    if operator.op == "DEPTHWISE_CONV_2D":
        return abs(prod(result[1:])) * prod(weights[1:3])
    return abs(prod(result[1:])) * prod(weights[1:])


def prove_it_runs(path: Path) -> None:
    """Run the model once on zeros; raises Refused when LiteRT cannot. A hostile one may end the process."""
    try:
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
        interpreter.allocate_tensors()
        for entry in interpreter.get_input_details():
            interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["unknown reason"])[0][:300]
        raise Refused(f"LiteRT cannot run the model: {reason}", remedy="convert the model again") from error
