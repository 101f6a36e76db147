"""Models of every opset and exporter come through in one form and answer as before, or are refused whole."""

import warnings

import numpy as np
import pytest
from onnx import TensorProto, helper

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.reading import parse_model
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.run import run as run_recipe
from tests.compression_jobs.pipeline.graph import exporters
from tests.compression_jobs.pipeline.graph.exporters import conv_net, enlarging, paddle_net, tf2onnx_net
from tests.compression_jobs.pipeline.graph.models import ops, save, weights
from tests.compression_jobs.pipeline.graph.test_rewrites import run

PI = "raspberry-pi-4"


def through(tmp_path, model, x):
    """The operators after ingest; the answers are those of the original."""
    path = save(tmp_path, model)
    assert describe_model(path)["format"] == "onnx"
    graph = canonicalise(path, x)
    assert graph.notes == []
    assert graph.opset == 17
    expected = run(model.SerializeToString(), x[:1])
    np.testing.assert_allclose(run(graph.to_bytes(), x[:1]), expected, rtol=1e-3, atol=1e-5)
    return ops(graph)


@pytest.mark.parametrize("opset", range(7, 24))
def test_every_opset_from_7_to_23_is_brought_to_one_form(tmp_path, opset):
    form = ["Conv", "Relu", "MaxPool", "Clip", "GlobalAveragePool", "Reshape", "Gemm", "Softmax"]
    assert through(tmp_path, conv_net(opset), weights(3, 2, 8, 8)) == form


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 17, 18, 19, 21, 23])
def test_operators_whose_options_became_inputs_come_through(tmp_path, opset):
    form = ["Resize", "Pad", "Slice", "Split", "Concat"]
    assert through(tmp_path, enlarging(opset), weights(3, 2, 8, 8)) == form


@pytest.mark.parametrize("opset", [9, 13, 15, 18])
def test_tf2onnx_comes_through(tmp_path, opset):
    form = ["Transpose", "Conv", "Relu", "Transpose", "Reshape", "Gemm", "Softmax"]
    assert through(tmp_path, tf2onnx_net(opset), weights(3, 8, 8, 3)) == form


def test_paddle_comes_through(tmp_path):
    form = through(tmp_path, paddle_net(), weights(3, 3, 16, 32))
    assert form.count("Conv") == 4
    assert not {"Constant", "Identity", "BatchNormalization", "Flatten", "MatMul"} & set(form)


def test_torchs_newest_opset_comes_through(tmp_path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(), (torch.zeros(1, 2, 8, 8),), opset_version=23, verbose=False, external_data=False
        )
    program.save(str(tmp_path / "new.onnx"))
    x = weights(3, 2, 8, 8)
    graph = canonicalise(tmp_path / "new.onnx", x)
    expected = net(torch.from_numpy(x[:1])).detach().numpy()
    np.testing.assert_allclose(run(graph.to_bytes(), x[:1]), expected, rtol=1e-3, atol=1e-5)


def test_obstacles_of_every_kind_are_named_at_once():
    nodes = [
        helper.make_node("Magic", ["x"], ["a"], "spell", domain="acme"),
        helper.make_node("SequenceConstruct", ["a"], ["s"], "pile"),
        helper.make_node("Loop", ["x"], ["y"], "again"),
        helper.make_node("Reluu", ["x"], ["r"], "typo"),
        helper.make_node("ZipMap", ["y"], ["z"], "zip", domain="ai.onnx.ml"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in ("x", "y"))
    imports = [helper.make_opsetid(*each) for each in (("", 17), ("acme", 1), ("ai.onnx.ml", 3))]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=imports)
    with pytest.raises(Refused) as caught:
        parse_model(model.SerializeToString())
    assert len(caught.value.problems) == 5
    assert all(
        name in str(caught.value) for name in ("spell", "pile", "again", "typo", "zip", "zipmap=False")
    )


# --- classical models and the other tasks, measured by the front door -----------------------------


def measured(tmp_path, model, **arrays):
    """The published candidate of a model that passes through to onnxruntime."""
    np.savez(tmp_path / "d.npz", **arrays)
    path = save(tmp_path, model)
    result = run_recipe(parse_recipe(["canonicalise"]), path, tmp_path / "d.npz", PI, out=tmp_path / "out")
    assert result.met
    assert result.winner.agreement == pytest.approx(1)
    return result.winner.test_accuracy


def blobs(count=120, classes=3):
    """Points around one centre a class."""
    y = np.arange(count) % classes
    return (weights(count, 4) + 3 * np.eye(classes, 4, dtype=np.float32)[y]).astype(np.float32), y


def estimators():
    from sklearn import ensemble, linear_model, naive_bayes, neural_network, pipeline, preprocessing, svm

    return {
        "forest": ensemble.RandomForestClassifier(5, random_state=0),
        "boosting": ensemble.GradientBoostingClassifier(n_estimators=3),
        "adaboost": ensemble.AdaBoostClassifier(n_estimators=3),
        "svm": svm.SVC(),
        "svm with probabilities": svm.SVC(probability=True),
        "logistic": linear_model.LogisticRegression(),
        "sgd": linear_model.SGDClassifier(random_state=0),
        "scaled": pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.RidgeClassifier()),
        "bayes": naive_bayes.GaussianNB(),
        "perceptron": neural_network.MLPClassifier((8,), max_iter=20, random_state=0),
    }


@pytest.mark.parametrize("name", estimators() if pytest.importorskip("sklearn") else [])
@pytest.mark.parametrize("opset", [12, 18])
def test_classical_classifiers_come_through_unchanged(tmp_path, name, opset):
    skl2onnx = pytest.importorskip("skl2onnx")
    x, y = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = estimators()[name].fit(x, y)
        targets = {"": opset, "ai.onnx.ml": 2 if opset < 15 else 3}
        model = skl2onnx.to_onnx(fitted, x[:1], options={"zipmap": False}, target_opset=targets)
    graph = canonicalise(save(tmp_path, model), x[:20])
    answers = [int(run(graph.to_bytes(), row[None])[0]) for row in x[:20]]
    assert answers == fitted.predict(x[:20]).tolist()


def test_a_scaled_perceptron_of_scikit_learn_becomes_plain_dense_layers(tmp_path):
    from sklearn import neural_network, pipeline, preprocessing

    skl2onnx = pytest.importorskip("skl2onnx")
    x, _ = blobs()
    net = neural_network.MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = pipeline.make_pipeline(preprocessing.StandardScaler(), net).fit(x, x[:, 0] * 3 + 50)
    graph = canonicalise(save(tmp_path, skl2onnx.to_onnx(fitted, x[:1])), x[:20])
    assert [node.op_type for node in graph.nodes] == ["Gemm", "Relu", "Gemm"]
    answers = [float(np.ravel(run(graph.to_bytes(), row[None])[0])[0]) for row in x[:20]]
    assert answers == pytest.approx(fitted.predict(x[:20]).tolist(), abs=1e-3)


def test_a_forest_and_a_support_vector_machine_are_measured_for_onnxruntime(tmp_path):
    from sklearn import ensemble, svm

    skl2onnx = pytest.importorskip("skl2onnx")
    x, y = blobs()
    forest = ensemble.RandomForestClassifier(5, random_state=0).fit(x, y)
    made = skl2onnx.to_onnx(forest, x[:1], options={"zipmap": False})
    assert measured(tmp_path, made, x=x, y=y)["value"] > 0.8
    target = x[:, :1] * 2 - x[:, 1:2]
    (tmp_path / "svr").mkdir()
    machine = svm.SVR(kernel="linear").fit(x, target[:, 0])
    figures = measured(tmp_path / "svr", skl2onnx.to_onnx(machine, x[:1]), x=x, y=target)
    assert figures["value"] > 0.9


def test_an_autoencoder_is_measured_by_the_area_under_its_roc(tmp_path):
    plane, y = weights(2, 8), np.arange(200) % 4 == 0
    x = (weights(200, 2, seed=1) @ plane + np.where(y[:, None], weights(200, 8, seed=2), 0)).astype(
        np.float32
    )
    onto = (np.linalg.pinv(plane) @ plane).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    made = exporters.model(nodes, {"w": onto}, ("N", 8), ("N", 8), 17)
    figures = measured(tmp_path, made, x=x, y=y.astype(np.int64), task=np.array("reconstruction"))
    assert figures["value"] > 0.99
