"""The LiteRT runtime runs float and int8 models and quantises at the edges by the model's own scales."""

from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
import pytest

from device_agent.runtimes.litert import LiteRtRuntime

WEIGHTS = np.array([[1, 0], [-2, 3], [0.5, 1]], np.float32)
INT8, INT32, FLOAT = schema.TensorType.INT8, schema.TensorType.INT32, schema.TensorType.FLOAT32


def tensor(name: str, kind: int, shape: list[int], buffer: int, scale: float = 0, zero_point: int = 0) -> Any:
    made = schema.TensorT()
    made.name, made.type, made.shape, made.buffer = name.encode(), kind, shape, buffer
    if scale:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [zero_point]
    return made


def buffer(data: bytes = b"") -> Any:
    made = schema.BufferT()
    made.data = np.frombuffer(data, np.uint8) if data else None
    return made


def dense_model(tensors: list[Any], buffers: list[Any]) -> bytes:
    """One fully connected layer: tensors are input, weights, bias, output."""
    code, layer, graph, model = (
        schema.OperatorCodeT(),
        schema.OperatorT(),
        schema.SubGraphT(),
        schema.ModelT(),
    )
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [3], [layer]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def float_model(folder: Path) -> str:
    path = folder / "float.tflite"
    tensors = [
        tensor("x", FLOAT, [1, 2], 0),
        tensor("w", FLOAT, [3, 2], 1),
        tensor("b", FLOAT, [3], 2),
        tensor("y", FLOAT, [1, 3], 0),
    ]
    path.write_bytes(dense_model(tensors, [buffer(), buffer(WEIGHTS.tobytes()), buffer(bytes(12))]))
    return str(path)


def int8_model(folder: Path) -> str:
    path = folder / "int8.tflite"
    tensors = [
        tensor("x", INT8, [1, 2], 0, 0.5, -3),
        tensor("w", INT8, [3, 2], 1, 0.5),
        tensor("b", INT32, [3], 2, 0.25),
        tensor("y", INT8, [1, 3], 0, 0.25, 5),
    ]
    weights = (WEIGHTS * 2).astype(np.int8).tobytes()
    path.write_bytes(dense_model(tensors, [buffer(), buffer(weights), buffer(bytes(12))]))
    return str(path)


def loaded(path: str, signature: dict[str, Any] | None = None) -> LiteRtRuntime:
    runtime = LiteRtRuntime()
    runtime.load(path, signature or {})
    return runtime


def test_a_float_model_answers_with_real_numbers(tmp_path: Path) -> None:
    assert loaded(float_model(tmp_path)).run([[1, 2]])[0].tolist() == [1, 4, 2.5]


def test_an_int8_model_takes_and_answers_real_numbers(tmp_path: Path) -> None:
    runtime = loaded(int8_model(tmp_path))
    assert runtime.run([1.0, 2.0])[0].tolist() == [1, 4, 2.5]
    # 0.25 lies half-way between two steps of the input and goes away from zero, as in TFLite.
    assert runtime.run([0.25, 0.0])[0].tolist() == [0.5, -1.0, 0.25]


def test_raw_tensors_of_an_int8_model_stay_integers(tmp_path: Path) -> None:
    (raw,) = loaded(int8_model(tmp_path)).run_raw([np.array([-1, 1], np.int8).tobytes()])
    assert np.frombuffer(raw, np.int8).tolist() == [9, 21, 15]


def test_inputs_and_signatures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = int8_model(tmp_path)
    with pytest.raises(ValueError, match=r"x has shape \[3\], the model takes int8 \[1, 2\]"):
        loaded(path).run([1, 2, 3])
    with pytest.raises(ValueError, match=r"signature says output y is float32 \[1, 3\]"):
        loaded(path, {"outputs": [{"dtype": "float32", "shape": [1, 3]}]})


def test_a_broken_file_fails_to_load(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3 but nothing behind it")
    with pytest.raises(ValueError, match=r"\S"):
        loaded(str(broken))


def test_answers_outlive_the_next_run_and_unload(tmp_path: Path) -> None:
    runtime = loaded(float_model(tmp_path))
    (first,) = runtime.run([1, 2])
    runtime.run([7, 7])
    runtime.unload()
    assert first.tolist() == [1, 4, 2.5]
    assert runtime.fresh().inputs == []
