"""QDQ ONNX: onnxruntime computes what the integers say, from small files, the same bytes each time."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression_jobs.pipeline.emit.qdq_onnx import emit
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph.quantgraph import FullyConnected, QuantGraph, Tensor, Weights
from device_agent.runtimes.onnx import open_session
from tests.compression_jobs.pipeline.nets import NETS, quantized


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", NETS)
def test_onnxruntime_is_within_two_steps_of_the_integers(name: str, granularity: str, tmp_path) -> None:
    graph, rows = quantized(name, granularity)
    (tmp_path / "model.onnx").write_bytes(emit(graph))
    session = open_session(str(tmp_path / "model.onnx"))
    answers = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    expected = quant_reference.run_float(graph, rows)
    assert np.abs(answers - expected).max() <= 2.01 * graph.tensors[graph.outputs[0]].scale
    assert (answers.argmax(1) == expected.argmax(1)).mean() > 0.9


@pytest.mark.parametrize("name", NETS)
def test_weights_are_stored_as_int8_and_biases_as_int32(name: str) -> None:
    graph, _ = quantized(name, "per_channel")
    model = onnx.load_model_from_string(emit(graph))
    stored = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    weights = sum(op.weights.values.size for op in graph.weighted())
    assert sum(a.size for a in stored if a.dtype == np.int8) >= weights
    assert sum(a.size for a in stored if a.dtype == np.float32) <= weights // 8 + 100
    assert model.opset_import[0].version == 17


def test_onnxruntime_runs_a_residual_net_in_integer_kernels_alone(tmp_path) -> None:
    import onnxruntime

    from device_agent.runtimes.onnx import session_options

    graph, _ = quantized("residual", "per_channel")
    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(emit(graph), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= kinds
    assert not kinds & {"Conv", "Add", "Gemm"}


def test_the_same_graph_gives_the_same_bytes() -> None:
    graph, _ = quantized("lenet", "per_channel")
    assert emit(graph) == emit(graph)


def test_a_graph_that_cannot_be_exact_is_refused() -> None:
    size = 70_000
    tensors = {"x": Tensor("x", (1, size), 1.0, 0), "y": Tensor("y", (1, 1), 1e5, 0)}
    weights = Weights(np.full((1, size), 127, np.int8), np.ones(1), np.zeros(1, np.int32))
    graph = QuantGraph(tensors, [FullyConnected("fc", ("x",), "y", weights, "none")], ["x"], ["y"])
    with pytest.raises(Refused, match="fc: its accumulator"):
        emit(graph)
