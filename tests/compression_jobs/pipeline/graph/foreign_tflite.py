"""Forms that `.tflite` files from other converters have, made by rewriting one of ours."""

from collections.abc import Callable
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

OP, TYPE = schema.BuiltinOperator, schema.TensorType


def rewritten(content: bytes, change: Callable[[Any], None]) -> bytes:
    """The file after `change` has had its way with the model."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def edges_of(dtype: int) -> Callable[[Any], None]:
    """Inputs and outputs of another type, with an operator to and from int8."""

    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        inner, result = graph.inputs[0], graph.outputs[0]
        graph.inputs, graph.outputs = [outer(graph, inner, dtype)], [outer(graph, result, dtype)]
        back = OP.DEQUANTIZE if dtype == TYPE.FLOAT32 else OP.QUANTIZE
        first = operator(model, OP.QUANTIZE, graph.inputs, [inner])
        graph.operators = [first, *graph.operators, operator(model, back, [result], graph.outputs)]

    return change


def outer(graph: Any, like: int, dtype: int) -> int:
    made, twin = schema.TensorT(), graph.tensors[like]
    made.name, made.shape, made.type, made.buffer = f"edge_{like}", list(twin.shape), dtype, 0
    if dtype == TYPE.UINT8:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = list(twin.quantization.scale)
        made.quantization.zeroPoint = [int(twin.quantization.zeroPoint[0]) + 128]
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def operator(model: Any, code: int, inputs: list[int], outputs: list[int]) -> Any:
    kind = schema.OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), 1
    model.operatorCodes.append(kind)
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes) - 1, inputs, outputs
    return made


def of_kind(model: Any, *codes: int) -> list[Any]:
    """The operators with one of these codes."""
    return [
        each
        for each in model.subgraphs[0].operators
        if model.operatorCodes[each.opcodeIndex].builtinCode in codes
    ]


def without_biases(model: Any) -> None:
    """An absent bias is written as -1, or the list of inputs ends before it."""
    for position, each in enumerate(of_kind(model, OP.CONV_2D, OP.DEPTHWISE_CONV_2D, OP.FULLY_CONNECTED)):
        each.inputs = [*each.inputs[:2], -1] if position % 2 == 0 else list(each.inputs[:2])


def buffers_of_their_own(model: Any) -> None:
    """TensorFlow gives each activation an empty buffer."""
    for tensor in model.subgraphs[0].tensors:
        if tensor.buffer == 0:
            model.buffers.append(schema.BufferT())
            tensor.buffer = len(model.buffers) - 1


def old_codes(model: Any) -> None:
    """Old files have the 8-bit field of operator codes only."""
    for code in model.operatorCodes:
        code.builtinCode = 0


def free_batch(model: Any) -> None:
    """Keras leaves the batch open, and the shape of what is flattened is put together on the way."""
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        if tensor.type == TYPE.INT8 and model.buffers[tensor.buffer].data is None:
            tensor.shapeSignature = [-1, *list(tensor.shape)[1:]]
    for reshape in of_kind(model, OP.RESHAPE):
        sizes = [number(model, size) for size in graph.tensors[reshape.outputs[0]].shape]
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = "shape", [len(sizes)], TYPE.INT32, 0
        graph.tensors.append(made)
        pack = operator(model, OP.PACK, sizes, [len(graph.tensors) - 1])
        pack.builtinOptions, pack.builtinOptionsType = (
            schema.PackOptionsT(),
            schema.BuiltinOptions.PackOptions,
        )
        pack.builtinOptions.valuesCount = len(sizes)
        graph.operators.insert(graph.operators.index(reshape), pack)
        reshape.inputs = [reshape.inputs[0], len(graph.tensors) - 1]


def number(model: Any, value: int) -> int:
    """A constant of one int32."""
    buffer, made = schema.BufferT(), schema.TensorT()
    buffer.data = list(int(value).to_bytes(4, "little"))
    model.buffers.append(buffer)
    made.name, made.shape, made.type, made.buffer = "n", [], TYPE.INT32, len(model.buffers) - 1
    model.subgraphs[0].tensors.append(made)
    return len(model.subgraphs[0].tensors) - 1


def nameless(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.name = None


def same_names(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.name = "t"
