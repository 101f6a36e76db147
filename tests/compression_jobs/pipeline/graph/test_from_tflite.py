"""Ready int8 `.tflite` files become the graph that TFLM computes, or are refused naming all that stands in the way."""

import random
from pathlib import Path

import numpy as np
import pytest

from compression_jobs.pipeline.emit import c_source, qdq_onnx, tflite
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from device_agent.runtimes.onnx import open_session
from tests.compression_jobs.pipeline.graph import foreign_tflite as foreign
from tests.compression_jobs.pipeline.graph.foreign_ops import READY
from tests.compression_jobs.pipeline.graph.foreign_tflite import OP, TYPE, rewritten
from tests.compression_jobs.pipeline.graph.random_ops import delay, window
from tests.compression_jobs.pipeline.graph.tflm import answers
from tests.compression_jobs.pipeline.mlperf_tiny import MODELS, ready
from tests.compression_jobs.pipeline.nets import NETS, quantized

FORMS = {
    "absent biases": foreign.without_biases,
    "buffers of their own": foreign.buffers_of_their_own,
    "old operator codes": foreign.old_codes,
    "a free batch": foreign.free_batch,
    "no names": foreign.nameless,
    "equal names": foreign.same_names,
}


def test_the_four_of_mlperf_tiny_answer_as_tflm_does_in_every_form(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    found = answers({name: (ready(name)[0], [ready(name)[1]]) for name in MODELS}, tmp_path)
    for name in MODELS:
        content, rows = ready(name)
        graph = from_tflite(content)
        stored = quant_reference.run(graph, {graph.inputs[0]: rows})[graph.outputs[0]]
        assert np.array_equal(stored, found[name]), name
        assert tflite.emit(graph) == content
        assert steps_in_onnxruntime(graph, rows, stored) <= 2, name
        assert "void model_run" in c_source.files(graph)["model.c"]


def steps_in_onnxruntime(graph, rows, expected) -> int:
    session = open_session(qdq_onnx.emit(graph))
    source, target = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    real = quant_reference.dequantize(rows, source)
    answered = np.concatenate(
        [session.run(None, {session.get_inputs()[0].name: row[None]})[0] for row in real]
    )
    steps = np.rint((answered.reshape(expected.shape) / target.scale + target.zero_point) - expected)
    return int(np.abs(steps).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["residual", "separable", "encoder"])
def test_files_of_other_converters_answer_as_in_tflm(form: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    graph, real = quantized(name, "per_tensor")
    content = rewritten(tflite.emit(graph), FORMS[form])
    rows = quant_reference.quantize(real[:20], graph.tensors[graph.inputs[0]])
    again = from_tflite(content)
    stored = quant_reference.run(again, {again.inputs[0]: rows})[again.outputs[0]]
    assert np.array_equal(stored, answers({"m": (content, [rows])}, tmp_path)["m"])


@pytest.mark.parametrize("dtype", [TYPE.UINT8, TYPE.FLOAT32])
def test_edges_that_are_not_int8_become_int8_and_keep_their_names(dtype: int) -> None:
    graph, real = quantized("separable", "per_channel")
    content = rewritten(tflite.emit(graph), foreign.edges_of(dtype))
    again = from_tflite(content)
    assert [type(op) for op in again.ops] == [type(op) for op in graph.ops]
    assert again.inputs[0].startswith("edge_")
    assert again.outputs[0].startswith("edge_")
    assert np.array_equal(quant_reference.run_float(again, real), quant_reference.run_float(graph, real))


def test_all_operators_without_a_place_are_named_at_once() -> None:
    def change(model) -> None:
        for code, new in ((OP.SOFTMAX, OP.L2_NORMALIZATION), (OP.AVERAGE_POOL_2D, OP.SVDF)):
            for each in foreign.of_kind(model, code):
                model.operatorCodes[each.opcodeIndex].builtinCode = new
                model.operatorCodes[each.opcodeIndex].deprecatedBuiltinCode = new

        model.subgraphs.append(model.subgraphs[0])  # as models with state have

    content = rewritten(tflite.emit(quantized("separable", "per_channel")[0]), change)
    with pytest.raises(Refused) as refused:
        from_tflite(content)
    kinds = [problem.partition(": ")[2] for problem in refused.value.problems]
    assert kinds == ["SVDF has no int8 form here", "L2_NORMALIZATION has no int8 form here"]


def test_every_layer_that_is_no_int8_is_named_at_once() -> None:
    def change(model) -> None:
        tensors = model.subgraphs[0].tensors
        for each in foreign.of_kind(model, OP.FULLY_CONNECTED)[:2]:
            tensors[each.inputs[1]].quantization.zeroPoint = [3]

    content = rewritten(tflite.emit(quantized("encoder", "per_tensor")[0]), change)
    with pytest.raises(Refused) as refused:
        from_tflite(content)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [
        "FULLY_CONNECTED_0",
        "FULLY_CONNECTED_1",
    ]


@pytest.mark.parametrize("rounds", [150, pytest.param(5000, marks=pytest.mark.full)])
def test_damaged_files_are_refused_in_words(rounds: int) -> None:
    chance = random.Random(0)
    contents = [tflite.emit(quantized(name, "per_channel")[0]) for name in NETS]
    contents += [tflite.emit(make(np.random.default_rng(0))) for make in (window, delay)] * 3
    contents += [make().content() for make in READY.values()]
    refused = 0
    for _ in range(rounds):
        content = bytearray(chance.choice(contents))
        for _ in range(chance.choice([1, 2, 8])):
            # The front holds the tables; behind them are mostly weights.
            content[chance.randrange(8, len(content))] = chance.randrange(256)
        try:
            graph = from_tflite(
                bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
            )
            quant_reference.run(graph, {n: np.zeros(graph.tensors[n].shape, np.int8) for n in graph.inputs})
        except Refused:
            refused += 1
    assert refused > rounds / 3
