"""The ONNX runtime answers what onnxruntime answers and refuses what does not fit in words."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device_agent.core import selftest
from device_agent.core.selftest import SelfTest
from device_agent.runtimes.onnx import OnnxRuntime, open_session, session_options

WEIGHTS = np.array([[1, -2, 0.5], [0, 3, 1]], np.float32)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> str:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return str(path)


def dense(folder: Path, rows: "int | str" = 1) -> str:
    return save(
        folder / "dense.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )


def identity_int8(folder: Path) -> str:
    return save(
        folder / "int8.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.INT8, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [1, 3])],
        [],
    )


def two_inputs(folder: Path) -> str:
    return save(
        folder / "two.onnx",
        [helper.make_node("Sub", ["a", "b"], ["y"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [],
    )


def loaded(path: str, signature: dict[str, Any] | None = None) -> OnnxRuntime:
    runtime = OnnxRuntime()
    runtime.load(path, signature or {})
    return runtime


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2]],
        [1, 2],
        np.array([1, 2], np.float64),
        np.array([[1, 2]], np.float32),
        np.array([1, 2], "<f4").tobytes(),
        memoryview(np.array([1, 2], "<f4").tobytes()),
    ],
)
def test_an_input_may_come_as_list_array_or_raw_bytes(tmp_path: Path, x: Any) -> None:
    (output,) = loaded(dense(tmp_path)).run(x)
    assert output.tolist() == [1, 4, 2.5]


def test_raw_tensors_in_raw_tensors_out(tmp_path: Path) -> None:
    (raw,) = loaded(dense(tmp_path)).run_raw([np.array([1, 2], "<f4").tobytes()])
    assert bytes(raw) == np.array([1, 4, 2.5], "<f4").tobytes()


@pytest.mark.parametrize(
    "x", [[1, 2, 3], [[1], [2]], [[[1, 2]]], 5, [], b"12", "ab", None, [[1, 2], [3]], [{}, 1]]
)
def test_an_input_that_does_not_fit_raises_value_error_with_the_models_shape(tmp_path: Path, x: Any) -> None:
    with pytest.raises(ValueError, match=r"float32 \[1, 2\]|no array of numbers"):
        loaded(dense(tmp_path)).run(x)


def test_integer_edges_are_quantised_by_the_signature(tmp_path: Path) -> None:
    spec = {"name": "x", "dtype": "int8", "shape": [1, 3], "scale": 0.5, "zero_point": 10}
    runtime = loaded(identity_int8(tmp_path), {"inputs": [spec], "outputs": [{**spec, "name": "y"}]})
    assert runtime.run([0.0, 1.25, -900.0])[0].tolist() == [0.0, 1.5, -69.0]
    assert bytes(runtime.run_raw([bytes([1, 2, 255])])[0]) == bytes([1, 2, 255])
    with pytest.raises(ValueError, match="NaN"):
        runtime.run([0.0, float("nan"), 1.0])


def test_a_model_with_several_inputs_takes_a_list_with_one_each(tmp_path: Path) -> None:
    runtime = loaded(two_inputs(tmp_path))
    assert runtime.run([[5, 5], [2, 3]])[0].tolist() == [3, 2]
    with pytest.raises(ValueError, match=r"takes 2 inputs \(a, b\)"):
        runtime.run([1.0])
    with pytest.raises(ValueError, match="1 inputs were given"):
        runtime.run_raw([bytes(8)])


def test_free_dimensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="input x has free dimensions"):
        loaded(dense(tmp_path, "batch"))


def test_a_model_that_is_not_what_the_signature_says_is_refused(tmp_path: Path) -> None:
    path = dense(tmp_path)
    with pytest.raises(ValueError, match=r"signature says input x is float32 \[1, 9\]"):
        loaded(path, {"inputs": [{"name": "x", "dtype": "float32", "shape": [1, 9]}]})
    with pytest.raises(ValueError, match="has 2 outputs, the model has 1"):
        loaded(path, {"outputs": [{}, {}]})


def test_a_broken_file_fails_to_load_and_leaves_no_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    runtime = loaded(dense(tmp_path))
    with pytest.raises(Exception, match=r"broken\.onnx"):
        runtime.load(str(broken), {})
    assert runtime.inputs == []


def test_a_fresh_runtime_is_empty_and_unload_is_harmless(tmp_path: Path) -> None:
    runtime = loaded(dense(tmp_path))
    other = runtime.fresh()
    other.unload()
    assert other.inputs == []
    assert runtime.run([1, 2])[0].tolist() == [1, 4, 2.5]


def test_sessions_run_on_one_thread_by_default(tmp_path: Path) -> None:
    assert session_options().intra_op_num_threads == 1
    assert session_options(3).intra_op_num_threads == 3
    assert open_session(dense(tmp_path)).get_providers() == ["CPUExecutionProvider"]


def test_a_self_test_passes_on_its_model_and_fails_on_another(tmp_path: Path) -> None:
    file = tmp_path / "selftest.bin"
    x, y = np.array([1, 2], "<f4"), np.array([1, 4, 2.5], "<f4")
    specs = [{"dtype": "float32", "shape": [1, 2]}], [{"dtype": "float32", "shape": [1, 3]}]
    with file.open("wb") as out:
        sample = ([x.tobytes()], [y.tobytes()])
        selftest.write(out, *specs, {"mode": "atol", "value": 1e-5}, [sample, sample], True)
    with file.open("rb") as opened:
        assert selftest.run(opened, loaded(dense(tmp_path))).passed
    with file.open("rb") as opened:
        result = selftest.run(opened, loaded(two_inputs(tmp_path)))
    assert result.reason == "the model failed: 1 inputs were given, the model takes 2"
    with file.open("rb") as opened:
        assert SelfTest(opened).header.samples == 2
