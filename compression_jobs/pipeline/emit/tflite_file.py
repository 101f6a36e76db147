"""Builds `.tflite` files through LiteRT's own schema: tensors, constants, operators, the same bytes each time."""

from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]
OPERATOR, OPTIONS = schema.BuiltinOperator, schema.BuiltinOptions

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
ALIGNMENT = 16  # of weights: microcontrollers read 32-bit biases from where they lie in flash
LARGEST_OLD_CODE = 127
TYPES = {
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
    "resource": schema.TensorType.RESOURCE,
}


class TfliteFile:
    """A file that grows tensor by tensor and operator by operator."""

    def __init__(self, description: str) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.description = SCHEMA_VERSION, description
        self.model.subgraphs, self.model.operatorCodes = [], []
        self.model.buffers = [schema.BufferT()]  # the first one is empty by convention
        self.graph = self._subgraph()
        self._codes: dict[int, int] = {}
        self._constants: dict[Any, int] = {}
        self._shared: dict[bytes, int] = {}

    def tensor(self, name: str, shape: tuple[int, ...], scale: float, zero_point: int) -> int:
        """An int8 activation; returns its index."""
        return self._tensor(name, shape, "int8", 0, self._quantization([scale], [zero_point]))

    def variable(self, name: str, first: Array, scale: float, zero_point: int) -> int:
        """A variable that starts as a constant, given to it in a subgraph of its own; returns the index of its handle."""
        if len(self.model.subgraphs) == 1:
            once = schema.CallOnceOptionsT()
            once.initSubgraphIndex = 1
            self._subgraph()
            self.operator(OPERATOR.CALL_ONCE, 1, [], None, once)
        main, self.graph = self.graph, self.model.subgraphs[1]
        buffer, meaning = self._buffer(first), self._quantization([scale], [zero_point])
        constant = self._tensor("", first.shape, "int8", buffer, meaning)
        self.operator(OPERATOR.ASSIGN_VARIABLE, 1, [self._handle(name), constant], None)
        self.graph = main
        return self._handle(name)

    def constant(
        self, values: Array, scales: npt.NDArray[np.float64] | None = None, axis: int = 0, zero_point: int = 0
    ) -> int:
        """A constant, with one scale or one a channel on `axis` if it stands for reals; equal ones are stored once."""
        meaning = None if scales is None else (scales.tobytes(), axis, zero_point)
        key = (values.dtype.str, values.shape, values.tobytes(), meaning)
        if key not in self._constants:
            quantization = None
            if scales is not None:
                quantization = self._quantization(scales, [zero_point] * scales.size, axis)
            buffer = self._buffer(values)
            self._constants[key] = self._tensor("", values.shape, values.dtype.name, buffer, quantization)
        return self._constants[key]

    def operator(
        self, code: int, version: int, inputs: list[int], output: int | None, options: Any = None
    ) -> None:
        """An operator with one output or none; `options` is an object of the schema's own classes."""
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs = self._code(code, version), inputs
        made.outputs = [] if output is None else [output]
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(OPTIONS, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(made)

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The file."""
        self.graph.inputs, self.graph.outputs = inputs, outputs
        self._shared.clear()
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _subgraph(self) -> Any:
        made = schema.SubGraphT()
        made.tensors, made.operators, made.inputs, made.outputs = [], [], [], []
        self.model.subgraphs.append(made)
        return made

    def _handle(self, name: str) -> int:
        options = schema.VarHandleOptionsT()
        options.container, options.sharedName = "", name
        handle = self._tensor("", (), "resource", 0, None)
        self.operator(OPERATOR.VAR_HANDLE, 1, [], handle, options)
        return handle

    def _buffer(self, values: Array) -> int:
        self.model.buffers.append(_Buffer(values))
        return len(self.model.buffers) - 1

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: str, buffer: int, quantization: Any) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), TYPES[dtype]
        tensor.buffer, tensor.quantization = buffer, quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _quantization(self, scales: Any, zero_points: Any, axis: int = 0) -> Any:
        made = _Quantization(self._shared)
        made.scale = np.asarray(scales, np.float32)
        made.zeroPoint = np.asarray(zero_points, np.int64)
        made.quantizedDimension = axis
        return made

    def _code(self, code: int, version: int) -> int:
        if code not in self._codes:
            made = schema.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode = code, min(code, LARGEST_OLD_CODE)
            made.version = version
            self._codes[code] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(made)
        return self._codes[code]


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes are aligned, which the schema asks for and its Python classes do not do."""

    def __init__(self, values: Array) -> None:
        super().__init__()
        self.data = np.frombuffer(values.astype(values.dtype.newbyteorder("<")).tobytes(), np.uint8)

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's name
        builder.StartVector(1, self.data.size, ALIGNMENT)
        builder.head -= self.data.size
        builder.Bytes[builder.head : builder.head + self.data.size] = self.data.tobytes()
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


class _Quantization(schema.QuantizationParametersT):  # type: ignore[misc]
    """Scales whose equal vectors are stored once: on small models they would weigh as much as the weights."""

    def __init__(self, shared: dict[bytes, int]) -> None:
        super().__init__()
        self._shared = shared

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's name
        key = self.scale.tobytes() + b"|" + self.zeroPoint.tobytes() + bytes([self.quantizedDimension])
        if key not in self._shared:
            scale, zero_point = self._vector(builder, self.scale), self._vector(builder, self.zeroPoint)
            schema.QuantizationParametersStart(builder)
            schema.QuantizationParametersAddScale(builder, scale)
            schema.QuantizationParametersAddZeroPoint(builder, zero_point)
            schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
            self._shared[key] = int(schema.QuantizationParametersEnd(builder))
        return self._shared[key]

    def _vector(self, builder: Any, values: Array) -> int:
        key = values.dtype.str.encode() + values.tobytes()
        if key not in self._shared:
            self._shared[key] = int(builder.CreateNumpyVector(values))
        return self._shared[key]
