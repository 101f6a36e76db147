"""Models go to torch and back without changing what they answer, and are refused by name where they cannot."""

from typing import Any

import numpy as np
import pytest
import torch

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import net as n
from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm, insert_batch_norm
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.import_ops import IMPORTERS
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.running import Reference
from compression_jobs.pipeline.graph.torch_export import export_net
from compression_jobs.pipeline.graph.torch_import import import_net
from tests.compression_jobs.pipeline.conftest import Digits
from tests.compression_jobs.pipeline.graph.models import build, ops, save, weights
from tests.compression_jobs.pipeline.nets import NETS, Net

AXES = np.array([2, 3], np.int64)


def one(
    op: str, inputs: list[str] | None = None, constants: dict[str, Any] | None = None, **options: Any
) -> Any:
    """A model of one operator on x, with the result as it is."""
    return build([(op, inputs or ["x"], ["y"], {"name": "op", **options})], constants)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


SINGLE = {
    **{op: one(op) for op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Erf", "Exp", "Abs", "Neg",
                              "Identity", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "Elu", "HardSigmoid")},
    **{op: one(op, ["x", "c"], {"c": weights(2, 1, 1) + 4}) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max")},
    **{op: one(op, axis=1) for op in ("Softmax", "LogSoftmax")},
    "Sqrt": build([("Abs", ["x"], ["a"], {}), ("Sqrt", ["a"], ["y"], {})]),
    "Log": build([("Exp", ["x"], ["a"], {}), ("Log", ["a"], ["y"], {})]),
    "Pow": build([("Abs", ["x"], ["a"], {}), ("Pow", ["a", "c"], ["y"], {})], {"c": np.float32(1.5)}),
    "Sum": one("Sum", ["x", "x", "x"]),
    "PRelu": one("PRelu", ["x", "s"], {"s": weights(2, 1, 1)}),
    "Clip": one("Clip", ["x", "a", "b"], {"a": np.float32(-0.5), "b": np.float32(0.25)}),
    "Conv": one("Conv", ["x", "w"], {"w": weights(4, 1, 3, 2)}, group=2, strides=[2, 1], pads=[1, 0, 0, 1]),
    "ConvTranspose": one("ConvTranspose", ["x", "w"], {"w": weights(2, 3, 3, 3)}, strides=[2, 2], pads=[1, 1, 1, 1]),
    "ConvTranspose in groups": one("ConvTranspose", ["x", "w"], {"w": weights(2, 3, 2, 2)}, group=2),
    "BatchNormalization": one("BatchNormalization", ["x", "g", "b", "m", "v"],
                              {"g": weights(2), "b": weights(2), "m": weights(2), "v": weights(2) ** 2}, epsilon=1e-3),
    "MatMul": one("MatMul", ["x", "w"], {"w": weights(6, 3)}),
    "MatMul of two": build([("Transpose", ["x"], ["t"], {"perm": [0, 1, 3, 2]}), ("MatMul", ["x", "t"], ["y"], {})]),
    "MaxPool": one("MaxPool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]),
    "AveragePool": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool of zeros": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "Pad": one("Pad", ["x", "p", "f"], {"p": ints(0, 1, 2, 0, 0, 0, 1, 1), "f": np.float32(0.5)}),
    "Pad by mirror": one("Pad", ["x", "p"], {"p": ints(0, 0, 1, 2, 0, 0, 1, 0)}, mode="reflect"),
    "Concat": one("Concat", ["x", "c", "x"], {"c": weights(1, 3, 6, 6)}, axis=1),
    "Split": build([("Split", ["x", "s"], ["a", "b"], {"axis": 2}), ("MatMul", ["a", "w"], ["c"], {}),
                    ("Concat", ["b", "c"], ["y"], {"axis": 2})], {"s": ints(2, 4), "w": weights(6, 6)}),
    "Slice": one("Slice", ["x", "a", "b", "c", "d"], {"a": ints(1, 0), "b": ints(-1, 9), "c": ints(2, -1), "d": ints(2, 1)}),
    "Gather": one("Gather", ["x", "i"], {"i": ints(1, 0, -1)}, axis=3),
    "Transpose": one("Transpose", perm=[0, 2, 3, 1]),
    "Reshape": one("Reshape", ["x", "s"], {"s": ints(1, -1)}),
    **{op: build([(op, ["x"], ["y"], {"axes": [2, 3], "keepdims": 0})]) for op in ("ReduceMean", "ReduceMax")},
    "ReduceSum": one("ReduceSum", ["x", "a"], {"a": AXES}),
    "Resize": one("Resize", ["x", "", "s"], {"s": np.array([1, 1, 2, 3], np.float32)}, mode="nearest",
                  coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "LayerNormalization": one("LayerNormalization", ["x", "s", "b"], {"s": weights(6), "b": weights(6)}),
}  # fmt: skip
OTHERWISE_COVERED = {"Gemm", "Flatten", "Squeeze", "Unsqueeze", "Gelu"}


def test_every_operator_of_the_table_is_tried() -> None:
    assert {name.split(" ")[0] for name in SINGLE} | OTHERWISE_COVERED == set(IMPORTERS)


@pytest.mark.parametrize("name", SINGLE)
def test_an_operator_answers_alike_in_torch_and_back_in_onnx(name: str) -> None:
    graph = Graph(SINGLE[name])
    rows = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)
    back = export_net(import_net(graph, rows), graph, rows)
    assert Reference.of(graph, rows).difference(back) is None


@pytest.mark.parametrize("name", NETS)
def test_whole_nets_survive_the_way_there_and_back(name: str) -> None:
    made = NETS[name]()
    graph, rows = made.graph(), made.rows(6)
    back = export_net(import_net(graph, rows), graph, rows)
    assert Reference.of(graph, rows).difference(back) is None
    assert sorted(ops(back)) == sorted(ops(graph))
    assert back.to_bytes() == export_net(import_net(graph, rows), graph, rows).to_bytes()


def test_a_bias_behind_a_product_on_more_axes_goes_there_and_back_as_one() -> None:
    made = Net(5, 6)
    made.node("MatMul", made.y, made.weights(6, 4)).node("Add", made.weights(4), made.y).node("Relu")
    graph, rows = made.graph(), made.rows(8)
    for _ in range(2):
        net = import_net(graph, rows)
        assert [type(op).__name__ for op in net] == ["Dense", "Plain"]
        assert net.layers()[0].bias.any()
        graph = export_net(net, graph, rows)
        assert [node.op_type for node in graph.nodes] == ["MatMul", "Add", "Relu"]


def test_every_operator_that_cannot_be_trained_is_named_at_once() -> None:
    net = Net(2, 6, 6).conv(2, 4).node("Sin").node("Relu").node("Transpose", perm=[1, 0, 2, 3]).node("Det")
    with pytest.raises(Refused) as caught:
        import_net(net.graph())
    assert len(caught.value.problems) == 3
    assert "sin_1: Sin cannot be trained here" in str(caught.value)
    assert "it moves the batch dimension" in str(caught.value)


def test_a_wrong_import_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTERS, "Relu", IMPORTERS["Abs"])
    with pytest.raises(Refused, match="differs from onnxruntime"):
        import_net(NETS["perceptron"]().graph())


@pytest.mark.parametrize("name", [*NETS, "transposed"])
def test_batch_norm_goes_in_and_out_without_changing_anything(name: str) -> None:
    made = NETS[name]() if name in NETS else Net(4, 5, 5)
    if name == "transposed":
        made.node("ConvTranspose", made.y, made.weights(4, 3, 2, 2), group=2).node("Relu").conv(6, 2)
    graph, rows = made.graph(), torch.from_numpy(made.rows(32))
    net = import_net(graph)
    before = net(rows)
    layers = len(net.layers())
    assert insert_batch_norm(net, rows) == layers - 1
    assert insert_batch_norm(net, rows) == 0
    torch.testing.assert_close(net.eval()(rows), before, rtol=1e-4, atol=1e-5)
    fold_batch_norm(net)
    assert not any(isinstance(op, n.BatchNorm) for op in net)
    torch.testing.assert_close(net(rows), before, rtol=1e-4, atol=1e-5)


def test_an_export_of_torch_comes_in_with_its_layers(digits: Digits, tmp_path: Any) -> None:
    graph = canonicalise(digits.model)
    net = import_net(graph)
    assert [type(layer).__name__ for layer in net.layers()] == ["Conv"] * 4 + ["Dense"]
    assert save(tmp_path, export_net(net, graph).model).stat().st_size < digits.model.stat().st_size * 1.02
