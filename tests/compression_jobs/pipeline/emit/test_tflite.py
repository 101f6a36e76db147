"""The `.tflite` emitter: TensorFlow Lite Micro gives the bytes of the reference, LiteRT is a step away at most."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from compression_jobs.pipeline.emit.tflite import emit
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from compression_jobs.pipeline.graph.quant_memory import micro_head_bytes
from tests.compression_jobs.pipeline.graph.random_ops import OPERATORS, rows
from tests.compression_jobs.pipeline.graph.tflm import answers, heads
from tests.compression_jobs.pipeline.mlperf_tiny import MODELS, ready
from tests.compression_jobs.pipeline.nets import NETS, quantized

pytest.importorskip("tflite_micro")

# Functions and products in a row may each round the other way.
LITERT_STEPS = {"gated": 2}


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 200), marks=pytest.mark.full)])
def test_every_operator_over_random_shapes_equals_tflm(seeds: range, tmp_path: Path) -> None:
    models, expected = {}, {}
    for kind, make in OPERATORS.items():
        for seed in seeds:
            chance = np.random.default_rng(seed)
            graph = make(chance)
            given = rows(graph, chance, 12)
            models[f"{kind} {seed}"] = (emit(graph), [given[name] for name in graph.inputs])
            expected[f"{kind} {seed}"] = quant_reference.run(graph, given)[graph.outputs[0]]
    found = answers(models, tmp_path)
    assert [name for name in models if not np.array_equal(found[name], expected[name])] == []


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_whole_nets_equal_tflm_and_litert_is_a_step_away(granularity: str, tmp_path: Path) -> None:
    models, expected = {}, {}
    for name in NETS:
        graph, real = quantized(name, granularity)
        stored = quant_reference.quantize(real, graph.tensors[graph.inputs[0]])
        models[name] = (emit(graph), [stored])
        expected[name] = quant_reference.run(graph, {graph.inputs[0]: stored})[graph.outputs[0]]
    found = answers(models, tmp_path)
    for name, (content, (stored,)) in models.items():
        assert np.array_equal(found[name], expected[name]), name
        steps = np.abs(litert(content, stored).astype(int) - expected[name]).max()
        assert steps <= LITERT_STEPS.get(name, 1), name


def litert(content: bytes, stored: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    found = []
    for row in stored:
        interpreter.set_tensor(source["index"], row[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(target["index"]))
    return np.concatenate(found)


@pytest.mark.parametrize("name", NETS)
def test_what_was_written_is_read_back_as_the_same_graph(name: str) -> None:
    graph, real = quantized(name, "per_channel")
    content = emit(graph)
    again = from_tflite(content)
    assert emit(again) == content == emit(graph)
    assert [type(op) for op in again.ops] == [type(op) for op in graph.ops]
    stored = {graph.inputs[0]: quant_reference.quantize(real, graph.tensors[graph.inputs[0]])}
    results = [quant_reference.run(each, stored)[each.outputs[0]] for each in (graph, again)]
    assert np.array_equal(*results)


def test_the_planner_gives_what_tflm_records_as_the_head_of_its_arena(tmp_path: Path) -> None:
    graphs = [quantized(name, "per_channel")[0] for name in NETS]
    contents = [*(emit(graph) for graph in graphs), *(ready(name)[0] for name in MODELS)]
    graphs += [from_tflite(content) for content in contents[len(graphs) :]]
    assert [micro_head_bytes(graph) for graph in graphs] == heads(contents, tmp_path)


def test_constants_lie_where_a_microcontroller_can_read_them() -> None:
    graph, _ = quantized("residual", "per_channel")
    content = emit(graph)
    biases = [op.weights.bias.tobytes() for op in graph.weighted()]
    assert all(content.index(bias) % 16 == 0 for bias in biases)


def test_an_average_over_uncounted_padding_is_refused_by_name() -> None:
    x = q.Tensor("x", (1, 4, 4, 1), 0.1, 0)
    y = q.Tensor("y", (1, 5, 5, 1), 0.1, 0)
    op = q.Pool("blur", ("x",), "y", "average", (2, 2), (1, 1), (1, 1, 1, 1))
    with pytest.raises(Refused, match=r"blur: averages whose padding .* onnxruntime can run it"):
        emit(q.QuantGraph({"x": x, "y": y}, [op], ["x"], ["y"]))
