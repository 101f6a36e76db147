"""Operators that only move numbers have integer forms, and the layout that TensorFlow's exports bring costs nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression_jobs.pipeline.emit.plan import emit as emit_plan
from compression_jobs.pipeline.emit.qdq_onnx import emit
from compression_jobs.pipeline.emit.tflite import emit as emit_tflite
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.running import open_session
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from tests.compression_jobs.pipeline.graph import models


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CONV = ("Conv", ["a", "w"], ["b"], {"pads": [1, 1, 1, 1]})
CONSTANTS = {
    "w": models.weights(4, 4, 3, 3),
    "v": models.weights(4, 4, 3),
    "dense": models.weights(144, 5),
    "row": ints(1, 144),
    "one": ints(1),
    "two": ints(2),
    "six": ints(6),
    "minus": ints(-1),
    "end": ints(1 << 40),
    "split": ints(1, 2, 2, 6, 6),
    "joined": ints(1, 4, 6, 6),
    "twice": np.array([1, 1, 2, 3], np.float32),
}
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
CASES: dict[str, tuple[tuple[int, ...], list[Any], list[type[q.Op]]]] = {
    "a net of TensorFlow": (
        (6, 6, 4),
        [
            ("Transpose", ["x"], ["a"], {"perm": [0, 3, 1, 2]}),
            CONV,
            ("Transpose", ["b"], ["c"], {"perm": [0, 2, 3, 1]}),
            ("Reshape", ["c", "row"], ["d"], {}),
            ("MatMul", ["d", "dense"], ["y"], {}),
        ],
        [q.Conv, q.Reshape, q.FullyConnected],
    ),
    "a signal of TensorFlow": (
        (12, 4),
        [
            ("Transpose", ["x"], ["a"], {"perm": [0, 2, 1]}),
            ("Conv", ["a", "v"], ["b"], {"pads": [1, 1]}),
            ("Transpose", ["b"], ["y"], {"perm": [0, 2, 1]}),
        ],
        [q.Reshape, q.Conv, q.Reshape],
    ),
    "shuffled channels": (
        (4, 6, 6),
        [
            ("Reshape", ["x", "split"], ["s"], {}),
            ("Transpose", ["s"], ["t"], {"perm": [0, 2, 1, 3, 4]}),
            ("Reshape", ["t", "joined"], ["a"], {}),
            ("Conv", ["a", "w"], ["y"], {"pads": [1, 1, 1, 1]}),
        ],
        [q.Reshape, q.Transpose, q.Reshape, q.Transpose, q.Conv, q.Transpose],
    ),
    "every second of the last channels": (
        (4, 6, 6),
        [
            ("Relu", ["x"], ["a"], {}),
            CONV,
            ("Slice", ["b", "one", "end", "one", "two"], ["s"], {}),
            ("Slice", ["s", "minus", "end", "two", ""], ["y"], {}),
        ],
        [q.Clamp, q.Conv, q.Slice, q.Slice],
    ),
    "enlarged": (
        (4, 6, 6),
        [("Relu", ["x"], ["a"], {}), CONV, ("Resize", ["b", "", "twice"], ["y"], NEAREST)],
        [q.Clamp, q.Conv, q.Enlarge],
    ),
    "the highest of each picture": (
        (4, 6, 6),
        [("Relu", ["x"], ["a"], {}), CONV, ("ReduceMax", ["b"], ["y"], {"axes": [2, 3], "keepdims": 0})],
        [q.Clamp, q.Conv, q.Pool, q.Reshape],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_moved_follows_the_float_model_in_every_form(name: str, tmp_path: Path) -> None:
    row, nodes, expected_ops = CASES[name]
    read = {each for _, inputs, _, _ in nodes for each in inputs}
    constants = {key: value for key, value in CONSTANTS.items() if key in read}
    model = models.build(nodes, constants, inputs=(("x", (1, *row)),))
    rows = models.weights(32, *row, seed=5)
    graph = quantize(canonicalise(models.save(tmp_path, model), rows), QuantizeOptions(), Material(rows, 0))
    kinds = [type(op) for op in graph.ops]
    assert [kind for kind in kinds if kind is not q.Transpose or kind in expected_ops] == expected_ops
    session, quantised = (open_session(data) for data in (model.SerializeToString(), emit(graph)))
    expected, running = (
        np.concatenate([each.run(None, {"x": one[None]})[0] for one in rows]).reshape(32, -1)
        for each in (session, quantised)
    )
    answers = quant_reference.run_float(graph, rows).reshape(32, -1)
    assert np.sqrt(((answers - expected) ** 2).mean()) < 0.03 * expected.std()
    assert np.isclose(answers, running, atol=2 * graph.tensors[graph.outputs[0]].scale).all()
    assert emit_plan(graph)
    assert emit_tflite(graph)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (("Resize", ["x", "", "twice"], ["y"], {**NEAREST, "mode": "linear"}), "whole factors"),
        (("Slice", ["x", "minus", "one", "one", "minus"], ["y"], {}), "backwards"),
        (("Transpose", ["x"], ["y"], {"perm": [1, 0, 2, 3]}), "batch dimension"),
    ],
)
def test_other_moves_are_refused_for_boards_in_words(node: Any, reason: str, tmp_path: Path) -> None:
    first = ("Conv", ["a", "w"], ["x"], {"pads": [1, 1, 1, 1]})
    constants = {key: value for key, value in CONSTANTS.items() if key in (*node[1], "w")}
    model = models.build([first, node], constants, inputs=(("a", (1, 4, 6, 6)),))
    rows = models.weights(32, 4, 6, 6, seed=5)
    graph = quantize(canonicalise(models.save(tmp_path, model), rows), QuantizeOptions(), Material(rows, 0))
    with pytest.raises(Refused, match=reason):
        emit_plan(graph)
