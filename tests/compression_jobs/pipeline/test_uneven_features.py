"""Features of very different sizes: int8 keeps them all apart, in every runtime, with raw features as the application has them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.graph.feature_scales import evened
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.run import run
from device_agent.core.ports import Runtime
from device_agent.runtimes.litert import LiteRtRuntime
from device_agent.runtimes.onnx import OnnxRuntime
from device_agent.runtimes.plan.runtime import PlanRuntime
from tests.compression_jobs.pipeline.graph import models
from tests.device_agent.runtimes.plan.machines import vm

SIZES = np.array([1400.0, 90.0, 5.0, 0.5, 0.05, 0.002])
OFFSETS = np.array([2000.0, 0.0, 20.0, -3.0, 0.1, 0.01])


def model(nodes: list[Any], x: list[int | str], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Of float32, whatever the constants were worked out in."""
    stored = {name: values.astype(np.float32) for name, values in constants.items()}
    made: onnx.ModelProto = models.build(nodes, stored, inputs=(("x", x),))
    return made


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six features, each of which decides about one of six classes, and a net with a scaler in front of it."""
    folder = tmp_path_factory.mktemp("wine")
    chance = np.random.default_rng(0)
    standard = chance.normal(size=(600, 6))
    y = np.arange(600) % 6
    standard[np.arange(600), y] += 4
    mixing = chance.normal(size=(6, 24))
    nodes = [
        ("Sub", ["x", "offset"], ["moved"], {}),
        ("Div", ["moved", "size"], ["scaled"], {}),
        ("MatMul", ["scaled", "w"], ["hidden"], {}),
        ("Relu", ["hidden"], ["lit"], {}),
        ("MatMul", ["lit", "v"], ["y"], {}),
    ]
    # relu(z) - relu(-z) = z: the net mixes the features and takes them apart again.
    constants = {"offset": OFFSETS, "size": SIZES, "w": np.hstack([mixing, -mixing])}
    undone = np.linalg.pinv(mixing)
    made = model(nodes, ["n", 6], {**constants, "v": np.vstack([undone, -undone])})
    models.save(folder, made)
    split = np.array(["train", "calibration", "validation", "test"])[np.arange(600) // 6 % 4]
    np.savez(folder / "d.npz", x=(standard * SIZES + OFFSETS).astype(np.float32), y=y, split=split)
    return folder


RUNTIMES: dict[str, type[Runtime]] = {
    "raspberry-pi-4": OnnxRuntime,
    "raspberry-pi-4-litert": LiteRtRuntime,
    "esp32-s3": PlanRuntime,
}


@pytest.mark.parametrize("slug", RUNTIMES)
def test_int8_answers_as_well_as_the_original_from_raw_features(
    wine: Path, slug: str, tmp_path: Path
) -> None:
    steps = parse_recipe(["canonicalise", "quantize"])
    goal = Goal(target=slug, max_drop=0.02)
    found = run(steps, wine / "m.onnx", wine / "d.npz", slug, out=tmp_path, goal=goal)
    assert found.met, found.sentence
    published = tmp_path / slug
    signature = json.loads((published / "signature.json").read_text())
    runtime = RUNTIMES[slug]()
    artifact = next(published.glob("model.*"))
    runtime.load(str(artifact), signature)
    with np.load(wine / "d.npz") as data:
        rows = data["split"] == "test"
        x, y = data["x"][rows], data["y"][rows]
    right = [np.argmax(runtime.run(row)[0]) == truth for row, truth in zip(x, y, strict=True)]
    assert found.winner is not None
    assert found.winner.test_accuracy is not None
    assert np.mean(right) == pytest.approx(found.winner.test_accuracy["value"])
    said = any("signature.json says by which mean and std" in note for note in found.winner.notes)
    assert said == (slug != "raspberry-pi-4")  # there it is part of the model
    if slug == "esp32-s3":
        code = "from device_agent.runtimes.table import runtime\nboard = runtime('micropython')\n"
        code += f"board.load({str(artifact)!r}, {signature!r})\nprint(board.run({x[0].tolist()!r})[0])"
        assert json.loads(vm("-c", code).stdout) == pytest.approx(runtime.run(x[0].tolist())[0])


def answers(graph: Graph, rows: np.ndarray) -> np.ndarray:
    from compression_jobs.pipeline.graph.running import open_session

    session = open_session(graph.to_bytes())
    return np.concatenate([session.run(None, {"x": row[np.newaxis]})[0] for row in rows])


@pytest.mark.parametrize("kind", ["groups", "padded", "channels last"])
def test_signals_of_uneven_channels_are_evened_where_a_convolution_reads_them(
    kind: str, tmp_path: Path
) -> None:
    chance = np.random.default_rng(1)
    groups, pad = (2, 0) if kind == "groups" else (1, 1)
    weights = (
        chance.normal(size=(8, 6 // groups, 3))
        / SIZES.reshape(groups, -1)[np.arange(8) * groups // 8, :, None]
    )
    nodes = [
        (
            "Conv",
            ["t" if kind == "channels last" else "x", "w"],
            ["c"],
            {"pads": [pad, pad], "group": groups},
        ),
        ("Relu", ["c"], ["y"], {}),
    ]
    x = chance.normal(size=(20, 6, 16)) * SIZES[:, None] + OFFSETS[:, None] * (kind == "groups")
    if kind == "channels last":
        nodes.insert(0, ("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}))
        x = x.transpose(0, 2, 1)
    x = np.ascontiguousarray(x, np.float32)
    graph = canonicalise(models.save(tmp_path, model(nodes, ["n", *x.shape[1:]], {"w": weights})), x[:8])
    found = evened(graph, x)
    assert found is not None
    even, normalisation = found
    before = answers(graph, x)
    assert answers(even, normalisation.apply(x)) == pytest.approx(before, abs=1e-3)
    whole = Graph(onnx.ModelProto.FromString(normalisation.in_front_of(even.to_bytes())))
    assert answers(whole, x) == pytest.approx(before, abs=1e-3)


def test_features_that_int8_keeps_apart_are_left_alone(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    x = chance.normal(size=(100, 6)).astype(np.float32)
    x[:, 0] *= 0.01  # a feature that hardly counts, such as the corner of a picture
    nodes = [("Gemm", ["x", "w"], ["y"], {"transB": 1})]
    weights = {"w": chance.normal(size=(8, 6))}
    path = models.save(tmp_path, model(nodes, ["n", 6], weights))
    assert evened(canonicalise(path, x[:8]), x) is None


@pytest.mark.parametrize("told", [{"mean": [0.0], "std": [1.0]}, {"mean": [0.0] * 6, "std": [0.0] * 6}, [1]])
def test_a_normalisation_that_does_not_fit_is_refused_by_the_agent(
    wine: Path, told: Any, tmp_path: Path
) -> None:
    run(parse_recipe(["quantize"]), wine / "m.onnx", wine / "d.npz", "esp32-s3", out=tmp_path)
    signature = json.loads((tmp_path / "esp32-s3" / "signature.json").read_text())
    with pytest.raises(ValueError, match="normalisation does not fit"):
        PlanRuntime().load(str(tmp_path / "esp32-s3" / "model.plan"), {**signature, "normalisation": told})
