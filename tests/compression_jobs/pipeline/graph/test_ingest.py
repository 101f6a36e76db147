"""Models of strangers come through in one form, or are refused naming the place and the way out."""

import os
import random
import warnings
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression_jobs.pipeline.errors import PipelineError, Refused
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.graph.facts_tflite import DAMAGE, _describe
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise, canonicalise_file, inline_external
from compression_jobs.pipeline.graph.reading import parse_model
from compression_jobs.pipeline.sandbox import Limits, run_limited
from tests.compression_jobs.pipeline.fuzzing import damaged_bytes
from tests.compression_jobs.pipeline.graph.models import build, conv_net, ops, save, save_external, weights
from tests.compression_jobs.pipeline.graph.test_facts import conv_tflite
from tests.compression_jobs.pipeline.graph.test_rewrites import run

RESIDUAL_FORM = {"Conv": 4, "Relu": 2, "Clip": 1, "Add": 1, "GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1}


@pytest.fixture(scope="module")
def residual_net():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU6())
            self.one = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
            self.two = nn.Sequential(nn.Conv2d(12, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12))
            self.short = nn.Conv2d(8, 12, 1, 2)
            self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 10))

        def forward(self, x):
            x = self.stem(x)
            return self.head(torch.relu(self.two(self.one(x)) + self.short(x)).mean((2, 3)))

    torch.manual_seed(0)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def export(net, path, **options):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(2, 1, 8, 8),), str(path), verbose=False, **options)


def check_residual(net, path):
    torch = pytest.importorskip("torch")
    x = weights(3, 1, 8, 8)
    graph = canonicalise(path, x)
    assert graph.notes == []
    assert Counter(ops(graph)) == RESIDUAL_FORM
    assert graph.opset == 17
    assert graph.outputs[0].shape == (1, 10)
    expected = net(torch.from_numpy(x[:1])).detach().numpy()
    np.testing.assert_allclose(run(graph.to_bytes(), x[:1]), expected, rtol=1e-3, atol=1e-5)


def test_torchs_default_exporter_comes_through_with_its_data_file(residual_net, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.onnx"
    export(residual_net, path, dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert (tmp_path / "m.onnx.data").exists()
    with pytest.raises(Refused) as caught:
        describe_model(path)
    assert str(caught.value) == "weights are in m.onnx.data; upload both, or export with external_data=False"
    assert (
        describe_model(path, [tmp_path / "m.onnx.data"])["macs"]
        == describe_inlined(path, tmp_path)["macs"]
        > 0
    )
    check_residual(residual_net, path)


def describe_inlined(path, tmp_path):
    inline_external(path, {"m.onnx.data": tmp_path / "m.onnx.data"}, tmp_path / "one.onnx")
    return describe_model(tmp_path / "one.onnx")


@pytest.mark.parametrize(
    "options",
    [{"opset_version": 17}, {"opset_version": 11}, {"opset_version": 13, "training": "PRESERVE", "do_constant_folding": False}],
)  # fmt: skip
def test_torchs_old_exporter_comes_through(residual_net, tmp_path, options):
    torch = pytest.importorskip("torch")
    if "training" in options:
        options = options | {"training": torch.onnx.TrainingMode.PRESERVE}
    export(
        residual_net,
        tmp_path / "m.onnx",
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
        **options,
    )
    check_residual(residual_net, tmp_path / "m.onnx")


def test_skl2onnx_comes_through_and_classical_operators_pass(tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    skl2onnx = pytest.importorskip("skl2onnx")
    x = weights(60, 4)
    fitted = linear_model.LogisticRegression().fit(x, np.arange(60) % 3)
    model = skl2onnx.to_onnx(fitted, x[:1], options={"zipmap": False})
    path = save(tmp_path, model)
    assert "LinearClassifier" in describe_model(path)["operators"]
    graph = canonicalise(path, x)
    assert [port.dtype for port in graph.outputs] == ["int64", "float32"]
    zipped = canonicalise(save(tmp_path, skl2onnx.to_onnx(fitted, x[:1])), x)
    assert [(port.dtype, port.shape) for port in zipped.outputs] == [("int64", (1,)), ("float32", (1, 3))]


def test_free_dimensions_are_settled_by_the_data(tmp_path):
    path = save(tmp_path, conv_net(inputs=(("x", ("n", 2, "h", "w")),)))
    assert canonicalise(path, weights(3, 2, 5, 7)).shapes["r"] == (1, 4, 5, 7)
    with pytest.raises(Refused, match=r"input x has free dimensions \[2, -1, -1\]; give a dataset"):
        canonicalise(path)


def test_the_graph_is_handed_over_as_a_file(tmp_path):
    data = tmp_path / "d.npz"
    np.savez(data, x=weights(40, 2, 6, 6), y=np.arange(40) % 4)
    out = tmp_path / "out.onnx"
    assert run_limited(canonicalise_file, save(tmp_path, conv_net()), data, out) == []
    assert ops(Graph.load(out)) == ["Conv", "Relu", "GlobalAveragePool", "Reshape"]


def test_a_fixed_batch_is_brought_to_one_where_the_model_allows_it(tmp_path):
    assert canonicalise(save(tmp_path, conv_net(inputs=(("x", (4, 2, 6, 6)),)))).inputs[0].shape == (
        1,
        2,
        6,
        6,
    )
    fixed = build(
        [("Reshape", ["x", "s"], ["y"], {})], {"s": np.array([4, 72])}, inputs=(("x", (4, 2, 6, 6)),)
    )
    with pytest.raises(
        Refused, match=r"does not work on single rows, its batch is 4.*export it with a batch of 1"
    ):
        canonicalise(save(tmp_path, fixed))


def test_functions_of_old_dynamo_exports_are_written_out(tmp_path):
    model = conv_net(domains=("mine",))
    body = [helper.make_node("Mul", ["a", "a"], ["b"])]
    model.functions.append(
        helper.make_function("mine", "Square", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    model.graph.node[1].CopyFrom(helper.make_node("Square", ["c"], ["r"], domain="mine"))
    assert ops(canonicalise(save(tmp_path, model))) == ["Conv", "Mul", "GlobalAveragePool", "Reshape"]


def relu(**options):
    return ("Relu", ["x"], ["y"], options)


def with_if():
    branch = helper.make_graph([helper.make_node("Constant", [], ["v"], value_float=1.0)], "b", [],
                               [helper.make_tensor_value_info("v", TensorProto.FLOAT, ())])  # fmt: skip
    model = build([relu(), ("If", ["c"], ["z"], {"name": "choice"})], {"c": np.array(True)})
    model.graph.node[1].attribute.extend(
        [helper.make_attribute("then_branch", branch), helper.make_attribute("else_branch", branch)]
    )
    return model


def with_sequence():
    return build(
        [
            ("SequenceConstruct", ["x"], ["s"], {"name": "pile"}),
            ("SequenceAt", ["s", "i"], ["y"], {"name": "pick"}),
        ],
        {"i": np.array(0)},
    )


def with_circle():
    return build(
        [
            ("Add", ["x", "b"], ["a"], {"name": "first"}),
            ("Relu", ["a"], ["b"], {"name": "second"}),
            ("Relu", ["b"], ["y"], {}),
        ]
    )


def with_huge_input():
    return build([relu()], inputs=(("x", (1, 1 << 40)),))


def with_lying_constant():
    model = conv_net()
    model.graph.initializer[0].dims[0] = 1 << 20
    return model


def with_exploding_functions():
    model = conv_net(domains=("mine",))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    for level in range(30):
        call, domain = ("Relu", "") if level == 0 else (f"f{level - 1}", "mine")
        body = [
            helper.make_node(call, ["a"], ["t"], domain=domain),
            helper.make_node(call, ["t"], ["b"], domain=domain),
        ]
        model.functions.append(helper.make_function("mine", f"f{level}", ["a"], ["b"], body, imports))
    model.graph.node.append(helper.make_node("f29", ["x"], ["z"], domain="mine"))
    return model


def without_runtime_support():
    return build([("Reshape", ["x", "s"], ["y"], {})], {"s": np.array([1, 71])}, outputs=(("y", ("a", "b")),))


def with_nan():
    model = conv_net()
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "b"))
    return model


def with_growth():
    return build([("Expand", ["x", "s"], ["y"], {})], {"s": np.array([1 << 26, 2, 6, 6])}, outputs=(("y", ("a", "b", "c", "d")),))  # fmt: skip


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (with_if(), r"choice \(If\): control flow; export the model for one fixed path"),
        (with_sequence(), r"pile \(SequenceConstruct\), pick \(SequenceAt\): sequence"),
        (build([("Magic", ["x"], ["y"], {"domain": "com.acme", "name": "m"})], domains=("com.acme",)), r"m \(Magic\): operator of the custom domain 'com.acme'"),
        (with_circle(), r"first \(Add\), second \(Relu\), .*: waits for its own result"),
        (with_huge_input(), "x: its shape .* is not acceptable"),
        (with_lying_constant(), "w: its shape .* does not match its"),
        (with_exploding_functions(), r"operators once its functions are written out; at most 20000"),
        (without_runtime_support(), "onnxruntime cannot run the model"),
        (build([("Relu", ["absent"], ["y"], {})]), "Relu making .*: reads 'absent', which nothing makes"),
        (build([relu()], opset=99, ir=8), "opset 99; 7 to"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_used_are_refused_in_words(tmp_path, model, reason):
    with pytest.raises(Refused, match=reason):
        describe_model(save(tmp_path, model))


@pytest.mark.parametrize(
    ("model", "sample", "reason"),
    [
        (with_nan(), weights(2, 2, 6, 6), "the model answers NaN or infinity at y"),
        (conv_net(), weights(2, 6, 6, 2), r"a row of the data is float32 \[6, 6, 2\], input x takes float32 \[2, 6, 6\]"),
        (conv_net(), weights(2, 2, 6, 6).astype(np.uint8), "a row of the data is uint8"),
        (build([("NonZero", ["x"], ["n"], {}), ("Cast", ["n"], ["y"], {"to": 1})]), weights(2, 2, 6, 6), "does not work|depends on the data"),
    ],
)  # fmt: skip
def test_what_data_and_model_do_not_settle_is_refused(tmp_path, model, sample, reason):
    with pytest.raises(Refused, match=reason):
        canonicalise(save(tmp_path, model), sample)


def test_all_offending_nodes_are_listed_at_once():
    nodes = [("Magic", ["x"], [f"y{i}"], {"domain": "acme", "name": f"m{i}"}) for i in range(12)]
    model = build(nodes, domains=("acme",), outputs=(("y3", None),))
    with pytest.raises(Refused, match=r"m0.*m1.*m11") as caught:
        parse_model(model.SerializeToString())
    assert len(caught.value.problems) == 12
    assert str(caught.value).count("acme") == 1  # one reason, said once


def test_too_many_operators_are_refused():
    with pytest.raises(Refused, match="20001 operators; at most 20000"):
        parse_model(
            build(
                [("Relu", ["x"], [f"y{i}"], {}) for i in range(20_001)], outputs=(("y7", None),)
            ).SerializeToString()
        )


def test_nodes_out_of_order_are_sorted(tmp_path):
    model = conv_net()
    backwards = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(backwards)
    assert ops(canonicalise(save(tmp_path, model))) == ["Conv", "Relu", "GlobalAveragePool", "Reshape"]


def test_a_model_that_outgrows_memory_is_refused_or_ends_the_child_alone(tmp_path):
    with pytest.raises(Refused, match=r"y: its shape .* is not acceptable"):
        describe_model(save(tmp_path, with_growth()))
    hidden = build(
        [("Expand", ["x", "s"], ["a"], {}), ("ReduceMax", ["a"], ["y"], {})],
        {"s": np.array([1 << 21, 2, 6, 6])},
    )
    with pytest.raises(PipelineError):
        run_limited(describe_model, save(tmp_path, hidden), limits=Limits(memory_bytes=512 << 20))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x08" * 100, bytes(1000), b"PK\x03\x04", b"\x0a\xff\xff\xff\xff\x0f"]
)
def test_files_that_are_no_onnx_are_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(Refused, match="this is not an ONNX model"):
        describe_model(path)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "/etc/passwd"}, "w: its data file '/etc/passwd' is not a plain file name"),
        ({"location": "../secret"}, "not a plain file name"),
        ({"location": "a/../../secret"}, "not a plain file name"),
        ({"location": "C:\\secret"}, "not a plain file name"),
        ({"location": ""}, "not a plain file name"),
        ({"location": "other.data"}, "weights are in other.data; upload both"),
        ({"offset": "1000000"}, "w: its data lies at bytes 1000000 to"),
        ({"offset": "-8"}, "the offset of its data, '-8', is not a number"),
        ({"length": "12"}, "its shape needs 288"),
        ({"length": "9" * 30}, "is not a number"),
    ],
)
def test_external_weights_are_only_read_from_where_they_may_be(tmp_path, entries, reason):
    (tmp_path.parent / "secret").write_bytes(b"x" * 288)
    path = save_external(tmp_path, conv_net(), **entries)
    with pytest.raises(Refused, match=reason):
        describe_model(path, [tmp_path / "m.onnx.data"])


def test_external_weights_behind_a_link_or_a_pipe_are_refused(tmp_path):
    path = save_external(tmp_path, conv_net())
    data = tmp_path / "m.onnx.data"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=r"m\.onnx\.data is a link"):
        describe_model(path, [data])
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(Refused, match="is not a plain file"):
        describe_model(path, [data])


def test_external_weights_arrive_unchanged(tmp_path):
    path = save_external(tmp_path, conv_net())
    inline_external(path, {"m.onnx.data": tmp_path / "m.onnx.data"}, tmp_path / "one.onnx")
    np.testing.assert_array_equal(Graph.load(tmp_path / "one.onnx").initializers["w"], weights(4, 2, 3, 3))


def mutants(original, count, seed):
    chance = random.Random(seed)
    return (damaged_bytes(original, chance) for _ in range(count))


def test_damaged_models_are_read_or_refused_but_never_break():
    original = conv_net().SerializeToString()
    refused = 0
    for mutant in mutants(original, 400, seed=1):
        try:
            parse_model(mutant)
        except Refused:
            refused += 1
    assert refused > 200


def test_damaged_tflites_are_read_or_refused_but_never_break():
    for mutant in mutants(conv_tflite(), 400, seed=2):
        try:
            _describe(mutant)
        except (Refused, *DAMAGE):
            continue
