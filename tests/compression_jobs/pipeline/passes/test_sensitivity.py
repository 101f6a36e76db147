"""What each layer can spare: the figures point at the layer that hurts, and ratios follow them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.emit.qdq_onnx import emit
from compression_jobs.pipeline.emit.tflite import emit as emit_tflite
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.quantgraph import Island, QuantGraph
from compression_jobs.pipeline.graph.running import open_session
from compression_jobs.pipeline.measure_onnxruntime import Feed
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from compression_jobs.pipeline.sandbox import run_limited
from compression_jobs.pipeline.sensitivity import analyse
from tests.compression_jobs.pipeline.conftest import Digits
from tests.compression_jobs.pipeline.nets import Net
from tests.compression_jobs.pipeline.passes.conftest import Studio, weights_of


def spoilt(model: Path, out: Path, scale: float) -> str:
    """One weight of the second layer far from all others: one scale for the layer leaves them no levels."""
    loaded = onnx.load(model)
    node = [node for node in loaded.graph.node if node.op_type == "Conv"][1]
    tensor = next(each for each in loaded.graph.initializer if each.name == node.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0, 0, 0] *= scale
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(loaded, out)
    return str(node.name)


def test_the_layer_that_int8_hurts_stands_out(digits: Digits, tmp_path: Path) -> None:
    name = spoilt(digits.model, tmp_path / "m.onnx", scale=300.0)
    found = run_limited(analyse, tmp_path / "m.onnx", digits.dataset)
    drops = {layer["name"]: layer["quantized_drop"] for layer in found["layers"]}
    assert (found["n"], found["split"], len(drops)) == (200, "validation", 5)
    assert max(drops, key=lambda each: drops[each]) == name
    assert drops[name] > 0.02


def test_halving_channels_is_told_for_all_layers_but_the_last(digits: Digits) -> None:
    layers = analyse(digits.model, digits.dataset)["layers"]
    assert [layer["pruned_drop"] is None for layer in layers] == [False] * 4 + [True]
    assert max(layer["pruned_drop"] for layer in layers[:-1]) > 0.1
    assert layers[0]["pruned_drop"] == layers[2]["pruned_drop"]  # their channels are added to each other
    assert layers[1]["parameters"] == 16 * 16 * 9 + 16


def test_ratios_follow_sensitivity_and_their_mean_is_what_was_asked(studio: Studio) -> None:
    options = {"steps": 0, "ratio": 0.5, "rounds": 1, "scope": "sensitivity"}
    found = weights_of(studio.export(studio.run("prune_channels", **options)))
    shares = [w.shape[0] / full for w, full in zip(found.values(), (16, 16, 16, 32, 10), strict=True)][:-1]
    assert shares[0] == shares[2]
    assert max(shares) - min(shares) > 0.1
    assert np.mean([shares[0], shares[1], shares[3]]) == pytest.approx(0.5, abs=0.12)


def test_a_model_that_cannot_be_trained_says_why(digits: Digits, tmp_path: Path) -> None:
    net = Net(1, 8, 8).node("Sin").node("Hardmax").reshape(1, 64).dense(64, 10)
    net.graph().save(tmp_path / "m.onnx")
    with pytest.raises(Refused, match="Hardmax"):
        run_limited(analyse, tmp_path / "m.onnx", digits.dataset)


def with_a_loud_channel(graph: Graph, factor: float) -> str:
    """The same answers, with one channel between two layers so large that one scale leaves the others no levels."""
    first, second = [node for node in graph.nodes if node.op_type == "Conv"][1:3]
    for node, place, cut in ((first, 1, np.s_[0]), (first, 2, np.s_[0]), (second, 1, np.s_[:, 0])):
        values = np.array(graph.constant(node, place))
        values[cut] *= factor if node is first else 1 / factor
        graph.set_initializer(node.input[place], values)
    return str(first.name)


def test_a_layer_left_in_float_takes_back_what_int8_costs(digits: Digits) -> None:
    data = Dataset.load(digits.dataset)
    calibration, (x, y) = data.rows("calibration")[0], data.rows("validation")
    graph = canonicalise(digits.model, calibration[:8])
    name = with_a_loud_channel(graph, 1000.0)

    def right(model: bytes) -> float:
        feed = Feed(open_session(model))
        return float(np.mean([feed.run(row)[0].argmax() == label for row, label in zip(x, y, strict=True)]))

    def int8(**options: object) -> QuantGraph:
        return quantize(graph, QuantizeOptions.model_validate(options), Material(calibration, 0))

    plain, spared = int8(), int8(float_layers=[name])
    assert right(emit(plain)) < right(graph.to_bytes()) - 0.1
    assert right(emit(spared)) > right(graph.to_bytes()) - 0.02
    [island] = [op for op in spared.ops if isinstance(op, Island)]
    assert [node.op_type for node in island.nodes] == ["Conv", "Relu", "Conv"]
    assert spared.parameters == plain.parameters
    assert np.array_equal(quant_reference.run_float(spared, x).argmax(1)[:5], y[:5])
    with pytest.raises(Refused, match=rf"{name}.*: the recipe leaves it in float.*onnxruntime"):
        emit_tflite(spared)
    with pytest.raises(Refused, match=r"nothing: there is no such layer.*this model has"):
        int8(float_layers=["nothing"])
