"""What each layer can spare: the figures point at the layer that hurts, and ratios follow them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression_jobs.pipeline.errors import Refused
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
