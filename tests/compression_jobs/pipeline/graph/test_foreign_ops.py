"""What ready files carry beside layers becomes the QuantGraph that TFLM computes; what has no place is named at once."""

import re
from pathlib import Path

import numpy as np
import pytest

from compression_jobs.pipeline.emit import plan, qdq_onnx, tflite
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from device_agent.runtimes.onnx import open_session
from device_agent.runtimes.plan.twin import Plan
from tests.compression_jobs.pipeline.graph import foreign_ops
from tests.compression_jobs.pipeline.graph.foreign_ops import OPERATOR, READY, Written, options
from tests.compression_jobs.pipeline.graph.tflm import answers

ROWS = 12


def test_ready_operators_answer_as_in_tflm_in_every_form(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    models, expected, loaded = {}, {}, Plan()
    for name, make in READY.items():
        content = make().content()
        graph = from_tflite(content)
        source, target = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
        chance = np.random.default_rng(1)
        rows = chance.integers(-128, 128, (ROWS, *source.shape[1:])).astype(np.int8)
        models |= {
            f"{name}, {form}": (file, [rows])
            for form, file in (("read", content), ("written", tflite.emit(graph)))
        }
        expected[name] = quant_reference.run(graph, {source.name: rows})[target.name].reshape(ROWS, -1)
        (tmp_path / "m.plan").write_bytes(plan.emit(graph))
        loaded.load(str(tmp_path / "m.plan"))
        assert np.array_equal(loaded.run_rows([rows.reshape(ROWS, -1)])[0], expected[name]), name
        session = open_session(qdq_onnx.emit(graph))
        real = [
            session.run(None, {source.name: row[None]})[0] for row in quant_reference.dequantize(rows, source)
        ]
        stored = np.rint(np.concatenate(real).reshape(ROWS, -1) / target.scale) + target.zero_point
        assert np.abs(stored - expected[name]).max() <= 2, name
    found = answers(models, tmp_path)
    wrong = [
        name
        for name in models
        if not np.array_equal(found[name].reshape(ROWS, -1), expected[name.rpartition(", ")[0]])
    ]
    assert wrong == []


def refused(made: Written) -> str:
    with pytest.raises(Refused) as found:
        from_tflite(made.content())
    return str(found.value)


def test_everything_that_has_no_int8_form_is_named_at_once() -> None:
    made = Written((1, 4, 4, 2))
    made.op(OPERATOR.RESIZE_BILINEAR, (1, 8, 8, 2), options("ResizeBilinear"), [made.listed(8, 8)])
    made.op(OPERATOR.BATCH_MATMUL, (1, 8, 8, 8), options("BatchMatMul"), [made.last])
    made.op(OPERATOR.SUM, (1, 8, 8), options("Reducer"), [made.listed(3)])
    text = refused(made)
    for kind in ("RESIZE_BILINEAR_0: RESIZE_BILINEAR", "BATCH_MATMUL_1: BATCH_MATMUL", "SUM_2: SUM"):
        assert kind + " has no int8 form here" in text


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (foreign_ops.mean((1, 4, 5, 6), (0,), (1, 4, 5, 6)), "it reduces no axis behind the batch"),
        (foreign_ops.batches, r"MEAN_1: .* has shape \[2, 3\]; the batch must be 1"),
        (foreign_ops.grouped, "see 2 of 4 channels; groups have no int8 form"),
        (foreign_ops.padded_with_ones(1, 4, 4, 2), "is padded with something else than zeros"),
        (foreign_ops.resized((5, 8)), "only a whole number of times as high and as wide"),
        (foreign_ops.backwards, "a step that goes backwards"),
        (foreign_ops.too_far, "its result has shape .* which does not follow"),
        (foreign_ops.uneven, "its 2 parts do not make up axis 3"),
        (foreign_ops.padded_batch, "not of the batch"),
        (foreign_ops.split_in(65), "names 65 tensors at once; at most 64 are accepted"),
    ],
)
def test_forms_that_are_not_there_are_refused_in_words(made, words: str) -> None:
    assert re.search(words, refused(made()))
