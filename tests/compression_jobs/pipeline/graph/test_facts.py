"""Uploaded models are described by facts, with our own count of multiplications."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.costs import macs_by_node
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.graph.facts_tflite import describe_tflite
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.sandbox import run_limited
from tests.compression_jobs.pipeline.graph.foreign_tflite import rewritten
from tests.compression_jobs.pipeline.graph.models import build, conv_net, save, weights
from tests.compression_jobs.pipeline.graph.tflite_models import OP, convolution, write


def test_the_facts_of_a_model(tmp_path):
    path = save(tmp_path, conv_net(inputs=(("x", ("batch", 2, 6, 6)),)))
    facts = run_limited(describe_model, path)
    assert facts["format"] == "onnx"
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 2, 6, 6]}]
    assert facts["outputs"] == [{"name": "y", "dtype": "float32", "shape": [-1, 4]}]
    assert facts["operators"] == {"Conv": 1, "Flatten": 1, "GlobalAveragePool": 1, "Relu": 1}
    assert facts["parameters"] == 4 * 2 * 9 + 4
    assert facts["macs"] == 36 * 4 * 2 * 9
    assert (facts["opset"], facts["quantised"], facts["problems"]) == (17, False, [])
    assert facts["bytes"] == path.stat().st_size


def test_macs_are_those_of_one_row_whatever_the_batch(tmp_path):
    fixed = describe_model(save(tmp_path, conv_net(inputs=(("x", (8, 2, 6, 6)),))))
    assert fixed["macs"] == 36 * 4 * 2 * 9


@pytest.mark.parametrize(
    ("node", "constants", "row", "macs"),
    [
        (("Conv", ["x", "w"], ["y"], {"group": 2, "strides": [2, 2]}), {"w": weights(4, 1, 3, 3)}, (2, 7, 7), 9 * 4 * 9),
        (("ConvTranspose", ["x", "w"], ["y"], {"strides": [2, 2]}), {"w": weights(2, 3, 2, 2)}, (2, 5, 5), 50 * 3 * 4),
        (("Gemm", ["x", "w"], ["y"], {"transB": 1}), {"w": weights(5, 7)}, (7,), 35),
        (("MatMul", ["x", "w"], ["y"], {}), {"w": weights(7, 5)}, (3, 7), 3 * 35),
        (("MatMul", ["x", "x"], ["y"], {}), {}, (4, 4), 64),
        (("LSTM", ["x", "w", "r"], ["y"], {"hidden_size": 2}), {"w": weights(1, 8, 3), "r": weights(1, 8, 2)}, (1, 3), 40),
    ],
)  # fmt: skip
def test_macs_of_layers(node, constants, row, macs):
    rank = None
    graph = Graph(build([node], constants, inputs=(("x", (1, *row)),), outputs=(("y", rank),)))
    counted = macs_by_node(graph)
    assert counted == {"y": macs}


def test_what_stops_compression_but_not_deployment_is_a_problem(tmp_path):
    free = describe_model(save(tmp_path, conv_net(inputs=(("x", (1, 2, "h", "w")),))))
    assert free["macs"] is None
    assert free["problems"] == ["input x has free dimensions [1, 2, -1, -1]; the dataset must settle them"]
    quantise = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["y"], {}),
    ]
    model = build(quantise, {"s": np.float32(0.1), "z": np.int8(0)})
    facts = describe_model(save(tmp_path, model))
    assert facts["quantised"]
    assert "already quantised (DequantizeLinear, QuantizeLinear)" in facts["problems"][0]
    two = build([("Add", ["x", "z"], ["y"], {})], inputs=(("x", (1, 4)), ("z", (1, 4))))
    assert "2 inputs (x, z)" in describe_model(save(tmp_path, two))["problems"][0]


def test_half_float_inputs_are_refused(tmp_path):
    model = build([("Relu", ["x"], ["y"], {})], out_type=TensorProto.FLOAT16)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(Refused, match="input x is float16; export the model in float32"):
        describe_model(save(tmp_path, model))


def tflite(tmp_path, content):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    return path


def conv_tflite():
    shapes = [(1, 6, 6, 2), (4, 3, 3, 2), (4,), (1, 6, 6, 4), (1, 6, 6, 4)]
    constants = {1: weights(4, 3, 3, 2), 2: weights(4)}
    operators = [(OP.CONV_2D, [0, 1, 2], [3], convolution()), (OP.RELU, [3], [4])]
    return write(shapes, operators, [0], [4], constants)


def test_the_facts_of_a_tflite(tmp_path):
    facts = run_limited(describe_model, tflite(tmp_path, conv_tflite()))
    assert facts["format"] == "tflite"
    assert facts["inputs"][0] | {"name": ""} == {
        "name": "", "dtype": "float32", "shape": [1, 6, 6, 2], "scale": None, "zero_point": None,
    }  # fmt: skip
    assert facts["operators"] == {"CONV_2D": 1, "RELU": 1}
    assert (facts["parameters"], facts["macs"]) == (4 * 2 * 9 + 4, 36 * 4 * 2 * 9)
    assert facts["quantised"] is False


@pytest.mark.parametrize(
    ("dtype", "kept"), [("FLOAT64", 24), ("UINT64", 24), ("FLOAT32", 12), ("INT16", 6), ("BOOL", 3)]
)
def test_what_a_tflite_keeps_is_counted_in_bytes_of_its_type(dtype, kept, tmp_path):
    def keep(model):
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.isVariable = "kept", [3], 0, True
        made.type = getattr(schema.TensorType, dtype)
        model.subgraphs[0].tensors.append(made)

    assert describe_tflite(tflite(tmp_path, rewritten(conv_tflite(), keep)))["state_bytes"] == kept


def test_what_no_device_can_do_of_a_tflite_is_named_at_once(tmp_path):
    operators = [(OP.CUSTOM, [0], [1]), (OP.IF, [1], [2]), (OP.WHILE, [2], [3])]
    content = write([(1, 4)] * 4, operators, [0], [3])
    with pytest.raises(Refused, match=r"CUSTOM magic: custom.*IF, WHILE: control flow"):
        describe_model(tflite(tmp_path, content))


def test_a_tflite_that_litert_cannot_run_is_refused(tmp_path):
    content = write([(1, 4), (1, 5), (1, 9)], [(OP.ADD, [0, 1], [2])], [0, 1], [2])
    with pytest.raises(Refused, match="LiteRT cannot run the model"):
        run_limited(describe_model, tflite(tmp_path, content))
