"""What goes over the air: the smallest coding, decoded as a device does it, with zstd beside it."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.transport import decoded, encoded, sentence
from compression_jobs.pipeline.weights_in_file import weights_in

RNG = np.random.default_rng(0)


def pruned(shape: tuple[int, int], values: int) -> np.ndarray:
    """Nine of ten weights zero, the others one of a few values."""
    chosen = RNG.choice(RNG.normal(size=values).astype(np.float32), shape)
    return np.where(RNG.random(shape) < 0.9, np.float32(0), chosen)


def network(*weights: np.ndarray) -> bytes:
    """A chain of dense layers."""
    nodes = [helper.make_node("MatMul", [f"t{at}", f"w{at}"], [f"t{at + 1}"]) for at in range(len(weights))]
    edges = [
        helper.make_tensor_value_info("t0", TensorProto.FLOAT, [1, weights[0].shape[0]]),
        helper.make_tensor_value_info(f"t{len(weights)}", TensorProto.FLOAT, [1, weights[-1].shape[1]]),
    ]
    tensors = [numpy_helper.from_array(weight, f"w{at}") for at, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "chain", edges[:1], edges[1:], tensors)
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return data


def test_pruned_shared_weights_go_as_segments_and_come_back_whole() -> None:
    model = network(pruned((300, 100), 32), pruned((100, 10), 32))
    sent = encoded(model, "onnx")
    assert sent.coding == "segments"
    assert len(model) / len(sent.data) > 20
    assert len(sent.data) < min(sent.sizes["deflate"], sent.sizes["zstd"])
    assert decoded("segments", sent.data, len(model), 4096) == model
    assert onnx.load_from_string(decoded(sent.coding, sent.data, len(model))).graph.node


def test_text_goes_as_deflate_and_noise_as_it_is() -> None:
    text = b"".join(b"static const int8_t weights_%d[] = {0};\n" % at for at in range(200))
    assert encoded(text, "c").coding == "deflate"
    noise = RNG.bytes(5000)
    assert encoded(noise, "plan").coding == "none"
    assert encoded(noise, "plan").data == noise


@pytest.mark.parametrize("coding", ["none", "deflate", "segments"])
def test_a_coding_that_was_asked_for_is_used(coding: str) -> None:
    model = network(pruned((64, 64), 16))
    sent = encoded(model, "onnx", coding)
    assert (sent.coding, len(sent.data)) == (coding, sent.sizes[coding])
    assert decoded(coding, sent.data, len(model)) == model
    assert "zstd" in sentence(sent.as_dict())


def test_weights_are_found_where_they_lie() -> None:
    weights = [pruned((30, 20), 4), pruned((20, 40), 4)]
    model = network(*weights)
    found = weights_in(model, "onnx")
    assert [model[each.start : each.end] for each in found] == [weight.tobytes() for weight in weights]
    # Two tensors of the same bytes, one of them found twice, still make ranges that do not overlap.
    twins = weights_in(network(weights[0], weights[0].T.copy(), weights[0]), "onnx")
    assert all(one.end <= two.start for one, two in pairwise(twins))


def test_encode_is_the_last_step_of_a_recipe() -> None:
    with pytest.raises(Refused, match="quantize cannot follow encode, which is always the last step"):
        parse_recipe(["canonicalise", "encode", "quantize"])
    with pytest.raises(Refused, match="encode"):
        parse_recipe(["canonicalise", {"name": "encode", "options": {"coding": "zip"}}])
    assert parse_recipe(["encode"]).encoding is not None
    assert parse_recipe(["canonicalise"]).encoding is None
