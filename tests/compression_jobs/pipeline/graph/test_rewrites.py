"""Every rewrite brings its pattern to the one form and leaves the outputs alone."""

import numpy as np
import onnxruntime
import pytest

from compression_jobs.pipeline.graph.graph import Graph, attributes
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.quant_builder import activation_of
from tests.compression_jobs.pipeline.graph.models import build, ops, save, weights

ROW = (2, 6, 6)


def ints(*values):
    return np.array(values, np.int64)


def run(model_bytes, x):
    session = onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def brought_to_form(tmp_path, model, row=ROW, seed=3):
    """The canonical graph, after checking rows that the rewrites were not checked with."""
    graph = canonicalise(save(tmp_path, model), weights(4, *row))
    assert graph.notes == []
    x = weights(1, *row, seed=seed)
    np.testing.assert_allclose(
        run(graph.to_bytes(), x), run(model.SerializeToString(), x), rtol=1e-3, atol=1e-5
    )
    return graph


CONV = ("Conv", ["x", "w"], ["c"], {"pads": [1, 1, 1, 1]})
NORM = {
    "g": weights(4),
    "be": weights(4, seed=1),
    "m": weights(4, seed=2),
    "v": np.abs(weights(4, seed=3)) + 0.5,
}
BN = ("BatchNormalization", ["c", "g", "be", "m", "v"], ["y"], {})
W = {"w": weights(4, 2, 3, 3)}
GATE = [("Add", ["x", "three"], ["a"], {}), ("Clip", ["a", "zero", "six"], ["k"], {})]
NUMBERS = {
    name: np.float32(value) for name, value in {"zero": 0, "three": 3, "six": 6, "sixth": 1 / 6}.items()
}
X36 = (("x", (1, 36)),)


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        pytest.param([CONV, BN], W | NORM, ["Conv"], id="batch norm into conv"),
        pytest.param(
            [("ConvTranspose", ["x", "w"], ["c"], {"group": 2}), BN],
            {"w": weights(2, 2, 3, 3)} | NORM,
            ["ConvTranspose"],
            id="batch norm into grouped transposed conv",
        ),
        pytest.param(
            [CONV, ("Relu", ["c"], ["r"], {}), ("BatchNormalization", ["r", *BN[1][1:]], ["y"], {})],
            W | NORM,
            ["Conv", "Relu", "Conv"],
            id="batch norm behind relu becomes depthwise",
        ),
        pytest.param(
            [CONV, ("Mul", ["c", "s"], ["d"], {}), ("Add", ["t", "d"], ["e"], {}), ("Div", ["e", "two"], ["y"], {})],
            W | {"s": weights(4, 1, 1), "t": weights(1, 4, 1, 1), "two": np.float32(2)},
            ["Conv"],
            id="constants a channel into conv",
        ),
        pytest.param(
            [CONV, ("Add", ["c", "t"], ["y"], {})],
            W | {"t": weights(1, 1, 1, 6)},
            ["Conv", "Add"],
            id="a constant along the width stays",
        ),
        pytest.param(
            [CONV, BN, ("Relu", ["c"], ["z"], {}), ("Add", ["y", "z"], ["out"], {})],
            W | NORM,
            ["Conv", "Conv", "Relu", "Add"],
            id="a shared conv is not folded into",
        ),
        pytest.param(
            [("Pad", ["x", "p"], ["q"], {}), ("Conv", ["q", "w"], ["y"], {"pads": [1, 0, 0, 0]})],
            W | {"p": ints(0, 0, 1, 2, 0, 0, 0, 1)},
            ["Conv"],
            id="pad into conv",
        ),
        pytest.param(
            [("Conv", ["x", "w"], ["y"], {"auto_pad": "SAME_LOWER", "strides": [2, 3]})],
            W,
            ["Conv"],
            id="same lower",
        ),
        pytest.param(
            [("MaxPool", ["x"], ["y"], {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 2], "strides": [2, 2]})],
            {},
            ["MaxPool"],
            id="same upper pool",
        ),
        pytest.param(
            [("ReduceMean", ["x"], ["y"], {"axes": [-1, 2], "keepdims": 0})],
            {},
            ["GlobalAveragePool", "Reshape"],
            id="mean",
        ),
        pytest.param([("ReduceMean", ["x"], ["y"], {"axes": [1, 2]})], {}, ["ReduceMean"], id="another mean"),
        pytest.param(
            [("Relu", ["x"], ["r"], {}), ("Min", ["r", "six"], ["y"], {})],
            {"six": np.float32(6)},
            ["Clip"],
            id="min of relu",
        ),
        pytest.param([("Clip", ["x", "zero"], ["y"], {})], {"zero": np.float32(0)}, ["Relu"], id="clip from 0"),
        pytest.param(
            [("Flatten", ["x"], ["f"], {}), ("Unsqueeze", ["f", "one"], ["u"], {}), ("Squeeze", ["u", "one"], ["y"], {})],
            {"one": ints(1)},
            ["Reshape"],
            id="chain of reshapes",
        ),
        pytest.param(
            [("Identity", ["x"], ["i"], {}), ("Identity", ["i"], ["j"], {}), ("Dropout", ["j"], ["d"], {}),
             ("Relu", ["d"], ["r"], {}), ("Cast", ["r"], ["y"], {"to": 1}), ("Sigmoid", ["r"], ["unused"], {})],
            {},
            ["Relu"],
            id="identities and dead nodes",
        ),
        pytest.param(
            [("Shape", ["x"], ["s"], {"start": 0, "end": 1}), ("Constant", [], ["m"], {"value_ints": [-1]}),
             ("Concat", ["s", "m"], ["t"], {"axis": 0}), ("Reshape", ["x", "t"], ["y"], {})],
            {},
            ["Reshape"],
            id="a computed shape",
        ),
        pytest.param([*GATE, ("Div", ["k", "six"], ["y"], {})], NUMBERS, ["HardSigmoid"], id="hard sigmoid written out"),
        pytest.param(
            [*GATE, ("Mul", ["sixth", "k"], ["g"], {}), ("Mul", ["x", "g"], ["y"], {})],
            NUMBERS,
            ["HardSwish"],
            id="hard swish with its gate scaled",
        ),
        pytest.param(
            [*GATE, ("Mul", ["k", "x"], ["g"], {}), ("Div", ["g", "six"], ["y"], {})],
            NUMBERS,
            ["HardSwish"],
            id="hard swish with its product scaled",
        ),
        pytest.param(
            [*GATE, ("Mul", ["k", "x"], ["g"], {}), ("Div", ["g", "three"], ["y"], {})],
            NUMBERS,
            ["Add", "Clip", "Mul", "Div"],
            id="twice a hard swish stays",
        ),
    ],
)  # fmt: skip
def test_image_patterns(tmp_path, nodes, constants, expected):
    out = "out" if any("out" in outputs for _, _, outputs, _ in nodes) else "y"
    graph = brought_to_form(tmp_path, build(nodes, constants, outputs=((out, None),)))
    assert ops(graph) == expected
    assert set(graph.shapes) >= {name for node in graph.nodes for name in node.output}


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (
            [("MatMul", ["x", "w"], ["m"], {}), ("Add", ["m", "b"], ["y"], {})],
            {"w": weights(36, 5), "b": weights(5)},
        ),
        (
            [("MatMul", ["x", "w"], ["m"], {}), ("Sub", ["m", "b"], ["y"], {})],
            {"w": weights(36, 5), "b": weights(1, 5)},
        ),
        (
            [("Gemm", ["x", "w", "b"], ["y"], {"alpha": 0.5, "beta": 2.0})],
            {"w": weights(36, 5), "b": weights(1)},
        ),
        ([("Gemm", ["x", "w"], ["c"], {"transB": 1}), BN], {"w": weights(4, 36)} | NORM),
    ],
)
def test_dense_layers_are_one_gemm(tmp_path, nodes, constants):
    graph = brought_to_form(tmp_path, build(nodes, constants, X36), (36,))
    assert ops(graph) == ["Gemm"]
    assert attributes(graph.nodes[0]) == {"transB": 1}
    assert graph.shapes[graph.nodes[0].input[1]][1] == 36
    assert len(graph.shapes[graph.nodes[0].input[2]]) == 1


def test_windows_are_stated(tmp_path):
    model = build([("Conv", ["x", "w"], ["y"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]})], W)
    stated = attributes(brought_to_form(tmp_path, model).nodes[0])
    assert stated == {
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "dilations": [1, 1],
        "group": 1,
        "pads": [0, 0, 1, 1],
    }


def test_relu6_is_recognised(tmp_path):
    model = build([("Clip", ["x", "lo", "hi"], ["y"], {})], {"lo": np.float32(0), "hi": np.float32(6)})
    graph = brought_to_form(tmp_path, model)
    assert activation_of(graph, graph.nodes[0]) == "relu6"
    assert graph.nodes[0].name


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 16])
def test_old_opsets_are_raised(tmp_path, opset):
    clip = ("Clip", ["r"], ["y"], {"min": 0.0, "max": 6.0}) if opset < 11 else ("Relu", ["r"], ["y"], {})
    nodes = [
        CONV,
        ("BatchNormalization", ["c", "g", "be", "m", "v"], ["n"], {}),
        ("Relu", ["n"], ["r"], {}),
        clip,
    ]
    graph = brought_to_form(tmp_path, build(nodes, W | NORM, opset=opset, ir=7))
    assert (graph.opset, graph.model.ir_version) == (17, 8)
    assert ops(graph)[:2] == ["Conv", "Relu"]


@pytest.mark.parametrize(
    ("opset", "nodes", "constants", "expected"),
    [
        (18, [("ReduceMean", ["x", "axes"], ["y"], {"keepdims": 0})], {"axes": ints(2, 3)}, ["GlobalAveragePool", "Reshape"]),
        (18, [("ReduceMax", ["x", "axes"], ["y"], {})], {"axes": ints(1)}, ["ReduceMax"]),
        (20, [("ReduceMean", ["x"], ["m"], {"noop_with_empty_axes": 1}), ("Relu", ["m"], ["y"], {})], {}, ["Relu"]),
        (21, [("Reshape", ["x", "s"], ["y"], {"allowzero": 1})], {"s": ints(-1, 72)}, ["Reshape"]),
        (19, [("Pad", ["x", "p", "", "axes"], ["q"], {}), ("Conv", ["q", "w"], ["y"], {})], W | {"p": ints(1, 1), "axes": ints(3)}, ["Conv"]),
        (20, [("Split", ["x"], ["a", "b"], {"axis": 3, "num_outputs": 2}), ("Mul", ["a", "b"], ["y"], {})], {}, ["Split", "Mul"]),
        (20, [("Gelu", ["x"], ["y"], {})], {}, ["Mul", "Erf", "Mul", "Add", "Mul"]),
        (22, [("AveragePool", ["x"], ["y"], {"kernel_shape": [2, 2], "dilations": [1, 1]})], {}, ["AveragePool"]),
        (23, [CONV, ("Relu", ["c"], ["r"], {}), ("Identity", ["r"], ["y"], {})], W, ["Conv", "Relu"]),
    ],
)  # fmt: skip
def test_new_opsets_are_lowered(tmp_path, opset, nodes, constants, expected):
    graph = brought_to_form(tmp_path, build(nodes, constants, opset=opset, ir=10))
    assert graph.opset == 17
    assert sorted(ops(graph)) == sorted(expected)


def test_the_tanh_form_of_gelu_is_written_out(tmp_path):
    model = build([("Gelu", ["x"], ["y"], {"approximate": "tanh"})], opset=20, ir=10)
    assert "Tanh" in ops(brought_to_form(tmp_path, model))


def test_a_wrong_rewrite_is_dropped_with_a_note(tmp_path, monkeypatch):
    def double_weights(graph: Graph) -> bool:
        graph.set_initializer("w", graph.initializers["w"] * 2)
        return True

    monkeypatch.setattr("compression_jobs.pipeline.graph.ingest.REWRITES", (double_weights,))
    graph = canonicalise(save(tmp_path, build([("Conv", ["x", "w"], ["y"], {})], W)), weights(2, *ROW))
    assert graph.notes == ["double weights was dropped: output y changes"]
    np.testing.assert_array_equal(graph.initializers["w"], W["w"])


def test_the_same_file_gives_the_same_bytes(tmp_path):
    path = save(tmp_path, build([CONV, BN], W | NORM))
    assert canonicalise(path, weights(2, *ROW)).to_bytes() == canonicalise(path, weights(2, *ROW)).to_bytes()


@pytest.mark.parametrize(
    ("op", "constants", "options", "opset"),
    [
        ("Mish", {}, {}, 18),
        ("GroupNormalization", {"s": weights(4), "b": weights(4, seed=1)}, {"num_groups": 2}, 21),
        ("RMSNormalization", {"s": weights(8)}, {}, 23),
        ("Attention", {}, {"q_num_heads": 2, "kv_num_heads": 2}, 23),
    ],
)
def test_newer_operators_are_written_out(tmp_path, op, constants, options, opset):
    row = (4, 6, 6) if op in ("Mish", "GroupNormalization") else (4, 8)
    given = ["x"] * 3 if op == "Attention" else ["x", *constants]
    model = build(
        [(op, given, ["y"], options)], constants, (("x", (1, *row)),), (("y", (1, *row)),), opset, ir=10
    )
    graph = brought_to_form(tmp_path, model, row)
    assert graph.opset == 17
    assert op not in ops(graph)
