"""From a float graph to a QuantGraph: what it computes, and what it refuses, all at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression_jobs.pipeline.emit.qdq_onnx import emit
from compression_jobs.pipeline.emit.tflite import emit as emit_tflite
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.quant_build import build
from compression_jobs.pipeline.graph.quant_calibrate import calibrate
from compression_jobs.pipeline.graph.quantgraph import (
    Conv,
    DepthwiseConv,
    FullyConnected,
    Island,
    QuantGraph,
    Tensor,
    Transpose,
    Weights,
)
from compression_jobs.pipeline.graph.running import open_session
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from tests.compression_jobs.pipeline.graph import models
from tests.compression_jobs.pipeline.nets import NETS, Net


def quantized(net: Net, granularity: str = "per_channel") -> tuple[QuantGraph, np.ndarray, np.ndarray]:
    """The QuantGraph with rows it was calibrated on and the float model's answers to them."""
    graph, rows = net.graph(), net.rows(48)
    session = open_session(graph.to_bytes())
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    return build(graph, calibrate(graph, rows, "minmax", 99.99), granularity), rows, expected


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", NETS)
def test_integers_follow_the_float_model(name: str, granularity: str) -> None:
    graph, rows, expected = quantized(NETS[name](), granularity)
    answers = quant_reference.run_float(graph, rows)
    error = np.sqrt(((answers - expected) ** 2).mean() / ((expected - expected.mean()) ** 2).mean())
    assert error < 0.06
    assert graph.problems() == []


NORMALISED = [("Sub", ["x", "mean"], ["a"], {}), ("Div", ["a", "deviation"], ["n"], {})]
GATED = [
    ("GlobalAveragePool", ["x"], ["m"], {}),
    ("HardSigmoid", ["m"], ["g"], {"alpha": 0.3, "beta": 0.4}),
    ("Mul", ["x", "g"], ["p"], {}),
    ("Clip", ["p", "low", "high"], ["y"], {}),
]
OTHER_CHANCE = [
    ("Sigmoid", ["x"], ["p"], {}),
    ("Sub", ["one", "p"], ["q"], {}),
    ("Concat", ["q", "p"], ["y"], {"axis": 1}),
]


@pytest.mark.parametrize(
    ("nodes", "convolutions"),
    [
        ([*NORMALISED, ("Conv", ["n", "w"], ["y"], {"pads": [1, 1, 1, 1]})], 2),
        ([("Sub", ["one", "x"], ["y"], {})], 1),
        (GATED, 1),
        (OTHER_CHANCE, 1),
    ],
    ids=[
        "normalisation inside the model",
        "one minus x",
        "squeeze and excite",
        "the chance of the other class",
    ],
)
def test_constants_beside_tensors_become_layers(tmp_path: Path, nodes: list, convolutions: int) -> None:
    shape = (3,) if nodes is OTHER_CHANCE else (3, 6, 6)
    constants = {
        "mean": models.weights(3, 1, 1),
        "deviation": np.abs(models.weights(3, 1, 1)) + np.float32(0.5),
        "w": models.weights(4, 3, 3, 3),
        "one": np.float32(1),
        "low": np.float32(-0.5),
        "high": np.float32(0.75),
    }
    model = models.build(nodes, constants, inputs=(("x", (1, *shape)),))
    rows = models.weights(32, *shape, seed=5)
    graph = canonicalise(models.save(tmp_path, model), rows)
    quantised = quantize(graph, QuantizeOptions(), Material(rows, 0))
    assert sum(isinstance(op, Conv | DepthwiseConv | FullyConnected) for op in quantised.ops) == convolutions
    session = open_session(model.SerializeToString())
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    answers = quant_reference.run_float(quantised, rows)
    assert np.sqrt(((answers - expected) ** 2).mean()) < 0.03 * expected.std()


@settings(max_examples=25, deadline=None)
@given(
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 5),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    dilation=st.integers(1, 2),
    depthwise=st.booleans(),
    activation=st.sampled_from(["", "Relu", "relu6"]),
    seed=st.integers(0, 1000),
)
def test_any_convolution_follows_the_float_one(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    pads: list[int],
    dilation: int,
    depthwise: bool,
    activation: str,
    seed: int,
) -> None:
    net = Net(inputs, 7, 8, seed=seed)
    options = {"strides": [stride, stride], "pads": pads, "dilations": [dilation, dilation]}
    channels = inputs * outputs if depthwise else outputs
    net.conv(inputs, channels, kernel, group=inputs if depthwise else 1, **options)
    if activation:
        net.relu6() if activation == "relu6" else net.node(activation)
    graph, rows, expected = quantized(net)
    answers = quant_reference.run_float(graph, rows)
    step = graph.tensors[graph.outputs[0]].scale
    # Rounding of input and weights, then of the output.
    assert np.abs(answers - expected).max() <= 6 * step
    assert np.abs(answers - expected).mean() <= step


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.floats(0.1, 20), st.integers(0, 1000))
def test_softmax_is_within_two_steps(width: int, spread: float, seed: int) -> None:
    graph = QuantGraph({}, [], ["x"], ["x"])
    tensor = Tensor("x", (1, width), float(np.float32(spread / 64)), 3)
    stored = np.random.default_rng(seed).integers(-128, 128, (20, width)).astype(np.int8)
    real = quant_reference.dequantize(stored, tensor).astype(np.float64)
    expected = np.exp(real - real.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    shares = quant_reference.softmax(stored, tensor.scale)
    assert graph.problems() == []
    assert np.abs((shares + 128) / 256 - expected).max() <= 2 / 256


def test_a_flattened_picture_stays_as_it_lies_and_the_weights_follow() -> None:
    graph, _, _ = quantized(NETS["separable"]())
    # The only transposition left is that of the three-channel input.
    assert [op.inputs for op in graph.ops if isinstance(op, Transpose)] == [("x",)]


def test_activations_are_fused_and_biases_stay_int32() -> None:
    graph, _, _ = quantized(NETS["residual"]())
    convolutions = [op for op in graph.ops if isinstance(op, Conv)]
    assert [op.activation for op in convolutions] == ["relu", "relu", "none", "none"]
    assert all(op.weights.bias.dtype == np.int32 for op in graph.weighted())


def test_per_tensor_has_one_scale_a_layer() -> None:
    graph, _, _ = quantized(NETS["residual"](), "per_tensor")
    assert {op.weights.scales.size for op in graph.weighted()} == {1}


def test_every_node_without_an_int8_form_is_named_at_once() -> None:
    net = Net(2, 6, 6).node("Sin").conv(2, 4).node("Erf").reshape(1, 64).dense(64, 3)
    with pytest.raises(Refused) as refused:
        emit_tflite(quantized(net)[0])
    assert refused.value.problems == ["sin_0: Sin has no int8 form here", "erf_2: Erf has no int8 form here"]


def test_odd_options_are_refused_with_their_node_and_the_rest_is_still_checked() -> None:
    net = Net(4, 8, 8).conv(4, 4, group=2)
    net.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], dilations=[2, 2])
    other = Net(4, 8, 8).node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    with pytest.raises(Refused, match="conv_0: groups = 2 for 4 channels"):
        quantized(net)
    with pytest.raises(Refused, match="ceil_mode"):
        quantized(other)


def test_a_huge_bias_makes_coarser_weights_instead_of_an_overflow() -> None:
    net = Net(1, 4, 4).reshape(1, 16)
    weights = net.constant(np.full((2, 16), 1e-7, np.float32))
    net.node("Gemm", net.y, weights, net.constant(np.array([1e4, 0], np.float32)), transB=1)
    graph, rows, expected = quantized(net)
    assert graph.problems() == []
    assert quant_reference.run_float(graph, rows)[:, 0] == pytest.approx(expected[:, 0], rel=0.01)


def test_a_tensor_that_is_always_zero_gets_a_scale_that_integers_reach(tmp_path: Path) -> None:
    nodes = [
        ("Conv", ["x", "w", "b"], ["c"], {}),
        ("Relu", ["c"], ["d"], {}),
        ("Conv", ["d", "v", "e"], ["y"], {}),
    ]
    constants = {
        "w": models.weights(4, 2, 1, 1),
        "b": np.full(4, -9, np.float32),
        "v": models.weights(3, 4, 1, 1),
    }
    model = models.build(nodes, constants | {"e": models.weights(3)}, inputs=(("x", (1, 2, 4, 4)),))
    rows = models.weights(32, 2, 4, 4, seed=5) / 2
    graph = quantize(canonicalise(models.save(tmp_path, model), rows), QuantizeOptions(), Material(rows, 0))
    answers = quant_reference.run_float(graph, rows).reshape(32, 3, -1)
    assert answers[0, :, 0] == pytest.approx(models.weights(3), abs=0.02)


def test_accumulators_beyond_the_exact_range_are_a_problem() -> None:
    size = 70_000
    tensors = {"x": Tensor("x", (1, size), 1.0, 0), "y": Tensor("y", (1, 1), 1e5, 0)}
    weights = Weights(np.full((1, size), 127, np.int8), np.ones(1), np.zeros(1, np.int32))
    op = FullyConnected("fc", ("x",), "y", weights, "none")
    problems = QuantGraph(tensors, [op], ["x"], ["y"]).problems()
    assert problems == ["fc: its accumulator can reach 1.14e+09, exact arithmetic ends at 1.07e+09"]


def test_what_has_no_int8_form_is_an_island_of_real_numbers(tmp_path: Path) -> None:
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("Softplus", ["c"], ["d"], {}),
        ("Split", ["d", "parts"], ["left", "right"], {"axis": 1}),
        ("Concat", ["right", "left"], ["turned"], {"axis": 1}),
        ("Conv", ["turned", "v"], ["e"], {}),
        ("Softsign", ["e"], ["y"], {}),
    ]
    constants = {"w": models.weights(8, 4, 3, 3), "v": models.weights(6, 8, 1, 1), "parts": np.array([3, 5])}
    model = models.build(nodes, constants, inputs=(("x", (1, 4, 5, 5)),))
    rows = models.weights(32, 4, 5, 5, seed=5)
    graph = quantize(canonicalise(models.save(tmp_path, model), rows), QuantizeOptions(), Material(rows, 0))
    assert [node.op_type for op in graph.ops if isinstance(op, Island) for node in op.nodes] == [
        "Softplus",
        "Softsign",
    ]
    answers = quant_reference.run_float(graph, rows)
    session, quantised = (open_session(data) for data in (model.SerializeToString(), emit(graph)))
    expected, running = (
        np.concatenate([each.run(None, {"x": row[None]})[0] for row in rows]) for each in (session, quantised)
    )
    assert np.abs(answers - expected).mean() < 0.05 * expected.std()
    # A step before the islands may become many steps behind them, so equal answers are counted.
    assert np.isclose(answers, running, atol=1e-4).mean() > 0.98
    with pytest.raises(Refused, match=r"Softplus has no int8 form.*Softsign"):
        emit_tflite(graph)


def test_a_recurrent_layer_is_an_island_whichever_of_its_results_is_read(tmp_path: Path) -> None:
    nodes = [
        ("Transpose", ["x"], ["steps"], {"perm": [1, 0, 2]}),
        ("LSTM", ["steps", "w", "r"], ["all", "last", "memory"], {"hidden_size": 3, "name": "lstm"}),
        ("Reshape", ["last", "flat"], ["h"], {}),
        ("Gemm", ["h", "dense"], ["y"], {"transB": 1}),
    ]
    constants = {"w": models.weights(1, 12, 4), "r": models.weights(1, 12, 3), "dense": models.weights(2, 3)}
    model = models.build(nodes, constants | {"flat": np.array([1, 3])}, inputs=(("x", (1, 5, 4)),))
    rows = models.weights(32, 5, 4, seed=5)
    graph = canonicalise(models.save(tmp_path, model), rows)
    assert [list(node.output) for node in graph.nodes if node.op_type == "LSTM"] == [["", "last"]]
    made = quantize(graph, QuantizeOptions(), Material(rows, 0))
    session, quantised = (open_session(data) for data in (model.SerializeToString(), emit(made)))
    expected, running = (
        np.concatenate([each.run(None, {"x": row[None]})[0] for row in rows]) for each in (session, quantised)
    )
    assert np.abs(running - expected).mean() < 0.05 * expected.std()
