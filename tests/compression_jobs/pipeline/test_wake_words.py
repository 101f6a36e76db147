"""Ready wake words, which keep a state from one run to the next, give TFLM's bytes in every form and refuse what is not sound."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression_jobs.pipeline import ready, selftest
from compression_jobs.pipeline.__main__ import MET, main
from compression_jobs.pipeline.benches import BENCHES
from compression_jobs.pipeline.dataset import check_pair, describe_dataset
from compression_jobs.pipeline.emit import plan, qdq_onnx, tflite
from compression_jobs.pipeline.emit.table import FORMS
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from compression_jobs.pipeline.graph.quant_memory import micro_head_bytes
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.streams import count
from compression_jobs.pipeline.suiting import suits
from compression_jobs.pipeline.targets import TARGETS
from device_agent.core import selftest as wire
from device_agent.runtimes.litert import LiteRtRuntime
from device_agent.runtimes.onnx import open_session
from device_agent.runtimes.plan.runtime import PlanRuntime
from device_agent.runtimes.plan.twin import Plan
from tests.compression_jobs.pipeline.emit.test_c_source import STRICT
from tests.compression_jobs.pipeline.graph import random_ops
from tests.compression_jobs.pipeline.graph.foreign_tflite import OP, operator, rewritten
from tests.compression_jobs.pipeline.graph.tflm import answers, heads
from tests.compression_jobs.pipeline.wake_words import NAMES, before_the_sigmoid, stream, wake_word
from tests.device_agent.runtimes.plan.machines import vm
from tests.device_agent.runtimes.plan.test_plan_files import run_micropython, run_python

RUNS = 40
# onnxruntime rounds otherwise, and what differs comes back with the state.
ONNX_STEPS = {"whole": 1, "logits": 4}


def files(name: str) -> dict[str, bytes]:
    content = wake_word(name)
    return {"whole": content, "logits": before_the_sigmoid(content)}


def int8(found: np.ndarray) -> np.ndarray:
    """The answers as they are inside a model with a uint8 output."""
    return found.reshape(-1) if found.dtype == np.int8 else (found.reshape(-1) ^ 128).view(np.int8)


@pytest.mark.parametrize(
    "name",
    [
        "alexa",
        "okay_nabu",
        pytest.param("hey_jarvis", marks=pytest.mark.full),
        pytest.param("hey_mycroft", marks=pytest.mark.full),
    ],
)
def test_every_form_gives_the_bytes_of_tflm(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    rows, graphs, models = stream(RUNS), {}, {}
    for form, content in files(name).items():
        (tmp_path / form).mkdir()
        (tmp_path / form / "in.bin").write_bytes(rows.tobytes())
        graphs[form] = from_tflite(content)
        for to in FORMS:
            convert(content, to, tmp_path / form / f"out.{to}", by_hand=name == "alexa" and form == "whole")
        models |= {form: content, f"{form} again": (tmp_path / form / "out.tflite").read_bytes()}
    found = answers({form: (content, [rows]) for form, content in models.items()}, tmp_path)
    for form, graph in graphs.items():
        folder, right = tmp_path / form, int8(found[form])
        assert np.array_equal(int8(found[f"{form} again"]), right), form
        assert np.array_equal(in_c(folder / "out.c", rows), right), form
        assert np.abs(in_onnxruntime(folder / "out.onnx", graph, rows) - right).max() <= ONNX_STEPS[form], (
            form
        )
        for run in (run_python, run_micropython):
            done = run(*(str(folder / each) for each in ("out.plan", "in.bin", "out.bin")))
            assert done.returncode == 0, done.stderr
            assert np.array_equal(np.fromfile(folder / "out.bin", np.int8), right), (form, run)
    assert len(set(right.tolist())) > 10, "the stream says something to the model"


def convert(content: bytes, to: str, out: Path, by_hand: bool) -> None:
    """As the command does; `by_hand` it is the command."""
    model = out.parent / "m.tflite"
    model.write_bytes(content)
    if by_hand:
        assert main(["convert", str(model), "--to", to, "--out", str(out)]) == MET
    else:
        ready.convert(model, to, out)


def in_c(folder: Path, rows: np.ndarray) -> np.ndarray:
    """The answers of a program that runs the model over standard input, twice: behind a reset they are the same."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler here")
    (folder / "stream.c").write_text(STREAM)
    sources = [folder / "model.c", folder / "stream.c"]
    done = subprocess.run(
        ["gcc", *STRICT, "-O2", *sources, "-o", folder / "p"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    given = rows.tobytes()
    answered = np.frombuffer(subprocess.run([folder / "p"], input=given, capture_output=True).stdout, np.int8)
    first, second = answered.reshape(2, -1)
    assert np.array_equal(first, second)
    return first


STREAM = r"""#include "model.h"
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    static int8_t given[1 << 20], answer[MODEL_OUTPUT_BYTES];
    size_t size = fread(given, 1, sizeof given, stdin);
    for (int round = 0; round < 2; round++, model_reset())
        for (size_t at = 0; at + MODEL_INPUT_BYTES <= size; at += MODEL_INPUT_BYTES) {
            model_run(given + at, answer);
            fwrite(answer, 1, sizeof answer, stdout);
        }
    return 0;
}
"""


def in_onnxruntime(path: Path, graph: q.QuantGraph, rows: np.ndarray) -> np.ndarray:
    """The answers of the ONNX form, fed with its own states as its metadata says."""
    session = open_session(str(path))
    shapes = {port.name: port.shape for port in session.get_inputs()}
    names = [port.name for port in session.get_outputs()]
    pairs = json.loads(session.get_modelmeta().custom_metadata_map["states"])
    kept = {pair["input"]: np.full(shapes[pair["input"]], pair["first"], np.float32) for pair in pairs}
    source, target = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    found = []
    for row in quant_reference.dequantize(rows, source):
        given = dict(zip(names, session.run(None, {source.name: row[None], **kept}), strict=True))
        kept = {pair["input"]: given[pair["output"]] for pair in pairs}
        found.append(given[target.name].item())
    return np.rint(np.array(found) / target.scale + target.zero_point).astype(int)


def test_the_planner_gives_tflms_head_and_convert_counts_the_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tflite_micro")
    graphs = [from_tflite(wake_word(name)) for name in NAMES]
    assert [micro_head_bytes(graph) for graph in graphs] == heads(
        [tflite.emit(graph) for graph in graphs], tmp_path
    )
    loaded = Plan()
    for graph in graphs:
        (tmp_path / "m.plan").write_bytes(plan.emit(graph))
        loaded.load(str(tmp_path / "m.plan"))
        # States are written in place: the plan needs no more than TFLM's head and the states behind it.
        assert graph.state_bytes < loaded.arena_bytes <= micro_head_bytes(graph) + graph.state_bytes + 640
    (tmp_path / "m.tflite").write_bytes(wake_word(NAMES[-1]))
    arguments = ["convert", str(tmp_path / "m.tflite"), "--to", "onnx", "--out", str(tmp_path / "out")]
    assert main(arguments) == MET
    told = capsys.readouterr().out
    assert f"It keeps {graphs[-1].state_bytes} bytes from one run to the next" in told
    assert "each state is one more input" in told


def test_a_plan_starts_anew_when_it_is_loaded_or_reset(tmp_path: Path) -> None:
    graph = random_ops.window(np.random.default_rng(3))
    rows = random_ops.rows(graph, np.random.default_rng(0), 5)["x"].reshape(5, -1)
    (tmp_path / "m.plan").write_bytes(plan.emit(graph))
    loaded = Plan()
    loaded.load(str(tmp_path / "m.plan"))
    first, going_on = (loaded.run_rows([rows])[0] for _ in range(2))
    loaded.reset()
    assert np.array_equal(loaded.run_rows([rows])[0], first)
    assert not np.array_equal(first, going_on)
    code = f"""
from device_agent.runtimes.plan.interpreter import Plan
plan = Plan()
plan.load({str(tmp_path / "m.plan")!r})
rows = {[row.tobytes() for row in rows]!r}
answer = bytearray(plan.outputs[0][1])
def run():
    found = b""
    for row in rows:
        plan.run(row, answer)
        found += answer
    return found
first, second = run(), run()
plan.reset()
assert first == run() == {first.tobytes()!r} and first != second
"""
    done = vm("-c", code)
    assert done.returncode == 0, done.stderr


# --- what is refused -------------------------------------------------------------------------------


def small() -> bytes:
    """A streaming model of two operators."""
    return tflite.emit(random_ops.window(np.random.default_rng(3)))


def of(model: Any, code: int, subgraph: int = 0) -> Any:
    codes = [each.builtinCode for each in model.operatorCodes]
    return next(each for each in model.subgraphs[subgraph].operators if codes[each.opcodeIndex] == code)


def assigned_twice(model: Any) -> None:
    model.subgraphs[0].operators.append(of(model, OP.ASSIGN_VARIABLE))


def read_before_it_is_declared(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.operators.remove(of(model, OP.VAR_HANDLE))


def never_assigned(model: Any) -> None:
    model.subgraphs[0].operators.remove(of(model, OP.ASSIGN_VARIABLE))


def assigned_in_another_shape(model: Any) -> None:
    found = of(model, OP.ASSIGN_VARIABLE)
    found.inputs = [found.inputs[0], model.subgraphs[0].inputs[0]]


def starts_in_another_shape(model: Any) -> None:
    tensor = model.subgraphs[1].tensors[of(model, OP.ASSIGN_VARIABLE, 1).inputs[1]]
    tensor.shape = [1, *reversed(tensor.shape[1:])] if len(set(tensor.shape[1:])) > 1 else [*tensor.shape, 1]


def starts_computed(model: Any) -> None:
    found = of(model, OP.ASSIGN_VARIABLE, 1)
    found.inputs = [found.inputs[0], found.inputs[0]]


def starts_twice(model: Any) -> None:
    model.subgraphs[1].operators.append(of(model, OP.ASSIGN_VARIABLE, 1))


def starts_in_a_loop(model: Any) -> None:
    model.subgraphs[1].operators.append(operator(model, OP.WHILE, [0], [0]))


def starts_by_calling_itself(model: Any) -> None:
    model.subgraphs[1].operators.insert(0, of(model, OP.CALL_ONCE))


def calls_itself(model: Any) -> None:
    of(model, OP.CALL_ONCE).builtinOptions.initSubgraphIndex = 0


def calls_nothing(model: Any) -> None:
    of(model, OP.CALL_ONCE).builtinOptions.initSubgraphIndex = 9


def has_another_subgraph(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


def answers_with_its_state(model: Any) -> None:
    model.subgraphs[0].outputs = [of(model, OP.READ_VARIABLE).outputs[0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (assigned_twice, r"ASSIGN_VARIABLE_\d: variable s is assigned twice in one run"),
        (
            read_before_it_is_declared,
            "READ_VARIABLE_1, ASSIGN_VARIABLE_4: no VAR_HANDLE in front of it declares its variable",
        ),
        (never_assigned, "variable s is read and never assigned"),
        (assigned_in_another_shape, "variable s is assigned with another shape"),
        (starts_in_another_shape, "variable s starts with another shape"),
        (starts_computed, "the first value of s is no constant"),
        (starts_twice, "variable s is given two first values"),
        (starts_in_a_loop, r"WHILE_2: a subgraph that is called once may only give constants"),
        (starts_by_calling_itself, r"CALL_ONCE_0: a subgraph that is called once may only give constants"),
        (calls_itself, "CALL_ONCE calls subgraph 0, of 2"),
        (calls_nothing, "CALL_ONCE calls subgraph 9, of 2"),
        (has_another_subgraph, "1 subgraphs that do more than give variables their first values"),
        (answers_with_its_state, "output s is an input, a variable or another output, too"),
    ],
)
def test_variables_that_are_not_sound_are_refused_by_name(change: Any, words: str, tmp_path: Path) -> None:
    content = rewritten(small(), change)
    with pytest.raises(Refused) as refused:
        from_tflite(content)
    assert re.search(words, str(refused.value)), refused.value
    if change not in SOUND:
        (tmp_path / "m.tflite").write_bytes(content)
        with pytest.raises(Refused) as at_the_door:
            describe_model(tmp_path / "m.tflite")
        assert str(at_the_door.value)


# LiteRT can run them.
SOUND = (has_another_subgraph, answers_with_its_state)


def test_a_first_value_of_many_runs_has_no_plan() -> None:
    x = q.Tensor("x", (1, 200), 0.1, 0)
    graph = q.QuantGraph(
        {"x": x, "y": q.Tensor("y", x.shape, 0.1, 0), "s": q.Tensor("s", x.shape, 0.1, 0)},
        [q.Add("op", ("x", "s"), "y", "none")],
        ["x"],
        ["y"],
        [q.State("s", "y", np.resize(np.array([1, 2], np.int8), x.shape))],
    )
    with pytest.raises(Refused, match="s: its first value has 200 runs of equal bytes, 64 are the most"):
        plan.emit(graph)
    assert qdq_onnx.states(graph)[0]["first"][:2] == pytest.approx([0.1, 0.2])


# --- from upload to device -------------------------------------------------------------------------


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    """A dataset of streams of 24 steps; half of them are told apart by what the wake word says itself."""
    x = np.stack([stream(24, seed) for seed in range(60)])
    y = np.arange(60) % 2
    np.savez(
        tmp_path / "d.npz", x=x, y=y, split=np.repeat(["train", "calibration", "validation", "test"], 15)
    )
    return tmp_path / "d.npz"


def test_a_wake_word_is_measured_as_streams_and_its_self_test_starts_anew(
    streams: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tflite_micro")
    model = tmp_path / "m.tflite"
    model.write_bytes(before_the_sigmoid(wake_word("alexa")))
    facts = describe_model(model)
    assert facts["state_bytes"] == from_tflite(model.read_bytes()).state_bytes
    assert any("a row of its dataset is a stream" in sentence for sentence in facts["problems"])
    check_pair(facts, describe_dataset(streams))
    small = suits(model, streams, TARGETS["esp32-s3"].model_dump(mode="json"))["int8"]
    assert small["activation_bytes"] == facts["state_bytes"] + micro_head_bytes(
        from_tflite(model.read_bytes())
    )
    content, rows = model.read_bytes(), np.load(streams)["x"][30:45]
    nowhere = suits(model, streams, TARGETS["raspberry-pi-4"].model_dump(mode="json"))
    assert not nowhere["runs"]
    assert "onnxruntime keeps nothing" in nowhere["problems"][0]
    right = np.array([answers({"m": (content, [row])}, tmp_path)["m"][-1].item() for row in rows[:2]])
    for runtime, step in (("micropython", 0), ("tflite-micro", 0), ("litert", 2)):
        made = ready.carry(model, parse_recipe(["keep"]), runtime)
        artifact, scores, test = (tmp_path / f"{runtime}.{end}" for end in ("model", "npy", "bin"))
        artifact.write_bytes(made.data)
        measured = BENCHES[runtime].measure(artifact, streams, "validation", scores)
        assert made.output is not None
        stored = np.rint(np.load(scores)[:2].ravel() / made.output["scale"]) + made.output["zero_point"]
        assert np.abs(stored - right).max() <= step, runtime
        assert measured["peak_ram_bytes"] > facts["state_bytes"] or runtime == "litert"
        selftest.write(artifact, streams, scores, made.output, test, runtime)
        passes_twice(runtime, artifact, test)
    with pytest.raises(
        Refused, match=r"keeps 3024 bytes from one run to the next, and onnxruntime keeps nothing"
    ):
        ready.carry(model, parse_recipe(["keep"]), "onnxruntime")


def passes_twice(runtime: str, artifact: Path, test: Path) -> None:
    """A device's own runtime passes the self-test, also in the middle of a stream, and starts anew behind it."""
    loaded = {"micropython": PlanRuntime, "litert": LiteRtRuntime, "tflite-micro": LiteRtRuntime}[runtime]()
    loaded.load(str(artifact), {})
    frames = [row.tobytes() for row in stream(3)]
    first = [bytes(loaded.run_raw([frame])[0]) for frame in frames]
    with open(test, "rb") as file:
        result = wire.run(file, loaded)
    assert (result.passed, result.samples) == (True, 8), (runtime, result.reason)
    assert [bytes(loaded.run_raw([frame])[0]) for frame in frames] == first


@pytest.mark.parametrize(
    ("shape", "steps"), [((24, 3, 40), 24), ((72, 40), 24), ((3, 40), 1), ((71, 40), 0), ((24, 3, 41), 0)]
)
def test_what_a_row_of_a_stream_may_look_like(shape: tuple[int, ...], steps: int) -> None:
    assert count(list(shape), [3, 40]) == steps
