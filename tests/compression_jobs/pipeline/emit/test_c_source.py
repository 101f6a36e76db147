"""The C emitter: strict C99 that a compiler takes without a word and that gives the bytes of TFLM's kernels."""

import ctypes
import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from compression_jobs.pipeline.emit import tflite
from compression_jobs.pipeline.emit.c_source import emit, files
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph import quantgraph as q
from tests.compression_jobs.pipeline.graph.random_ops import OPERATORS
from tests.compression_jobs.pipeline.graph.tflm import answers
from tests.compression_jobs.pipeline.nets import NETS, quantized

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
# What C leaves undefined must not happen on the way, either.
CHECKED = ["-fsanitize=undefined,address", "-fno-sanitize-recover=all"]
# QEMU's mps2-an386 has memory at 0, where a Cortex-M4 looks for its stack and its first instruction.
BOARD = ["-mcpu=cortex-m4", "-mthumb", "--specs=rdimon.specs", "-O2", "-Wl,--section-start=.vectors=0"]
BOARD_START = """
extern void _start(void);
__attribute__((section(".vectors"), used)) const void *const vectors[2] = {(void *)0x00400000, (void *)_start};
"""
QEMU = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler here")


def written(graph: q.QuantGraph, folder: Path) -> Path:
    folder.mkdir()
    for name, text in files(graph).items():
        (folder / name).write_text(text)
    return folder


def compiled(folder: Path, *flags: str) -> Path:
    program = folder / "program"
    sources = [folder / "model.c"] if "-shared" in flags else [folder / "model.c", folder / "test_main.c"]
    done = subprocess.run(["gcc", *STRICT, *flags, *sources, "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which(QEMU[0])), reason="no Cortex-M compiler or QEMU"
)
def test_nets_give_the_same_bytes_on_a_cortex_m4(tmp_path: Path) -> None:
    for name in NETS:
        folder = written(quantized(name, "per_channel")[0], tmp_path / name)
        (folder / "start.c").write_text(BOARD_START)
        sources = [folder / each for each in ("model.c", "test_main.c", "start.c")]
        build = ["arm-none-eabi-gcc", "-std=c99", *STRICT[2:], *BOARD, *sources, "-o", folder / "program"]
        done = subprocess.run(build, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        done = subprocess.run([*QEMU, folder / "program"], capture_output=True, text=True, timeout=60)
        # QEMU prints what the board says on standard error.
        assert (done.returncode, (done.stdout + done.stderr)[:5]) == (0, "0 of "), (name, done)


SEEDS = [range(2), *(pytest.param(range(at, at + 7), marks=pytest.mark.full) for at in range(2, 30, 7))]


@pytest.mark.parametrize("seeds", SEEDS)
def test_every_operator_passes_its_own_test_vector(seeds: range, tmp_path: Path) -> None:
    wrong = []
    for kind, make in OPERATORS.items():
        for seed in seeds:
            graph = make(np.random.default_rng(seed))
            program = compiled(written(graph, tmp_path / f"{kind} {seed}".replace(" ", "_")), *CHECKED)
            done = subprocess.run([program], capture_output=True, text=True)
            if done.returncode or not done.stdout.startswith("0 of"):
                wrong.append((kind, seed, done.stdout, done.stderr[:500]))
    assert wrong == []


def test_whole_nets_equal_tflm(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    models, found = {}, {}
    for name in NETS:
        graph, real = quantized(name, "per_channel")
        stored = quant_reference.quantize(real, graph.tensors[graph.inputs[0]])
        models[name] = (tflite.emit(graph), [stored])
        library = compiled(written(graph, tmp_path / name), "-O2", "-shared", "-fPIC")
        found[name] = [in_c(library, row, graph.tensors[graph.outputs[0]].size) for row in stored]
    expected = answers(models, tmp_path)
    for name, rows in found.items():
        assert np.array_equal(rows, expected[name].reshape(len(rows), -1)), name


def in_c(library: Path, row: np.ndarray, size: int) -> np.ndarray:
    answer = np.zeros(size, np.int8)
    pointers = [each.ctypes.data_as(ctypes.c_void_p) for each in (np.ascontiguousarray(row), answer)]
    ctypes.CDLL(str(library)).model_run(*pointers)
    return answer


def test_the_test_of_a_model_notices_other_weights(tmp_path: Path) -> None:
    graph, _ = quantized("perceptron", "per_channel")
    folder = written(graph, tmp_path / "model")
    assert subprocess.run([compiled(folder)]).returncode == 0
    text = (folder / "model.c").read_text()
    start, end = text.index("{", text.index("_weights[")), text.index("}", text.index("_weights["))
    weights = [-int(number) for number in text[start + 1 : end].split(",")]
    changed = text[: start + 1] + ", ".join(map(str, weights)) + text[end:]
    (folder / "model.c").write_text(changed)
    assert subprocess.run([compiled(folder)], capture_output=True).returncode == 1


def test_the_zip_holds_all_files_and_is_the_same_each_time() -> None:
    graph, _ = quantized("residual", "per_channel")
    first, second = emit(graph), emit(graph)
    assert first == second
    with zipfile.ZipFile(BytesIO(first)) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == files(graph)


def test_names_from_the_file_cannot_end_a_comment(tmp_path: Path) -> None:
    x, y = (q.Tensor(name, (1, 4), 0.1, 0) for name in ("x */ int i; /*", "y\n#error \\\n??/"))
    graph = q.QuantGraph(
        {x.name: x, y.name: y}, [q.Clamp("*/ #error", (x.name,), y.name, "relu")], [x.name], [y.name]
    )
    assert subprocess.run([compiled(written(graph, tmp_path / "model"))]).returncode == 0


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no CMake here")
def test_cmake_builds_it_and_runs_its_test(tmp_path: Path) -> None:
    folder = written(quantized("perceptron", "per_channel")[0], tmp_path / "model")
    for command in (["cmake", "-S", folder, "-B", tmp_path / "b"], ["cmake", "--build", tmp_path / "b"]):
        subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run(["ctest", "--test-dir", tmp_path / "b"], capture_output=True, text=True)
    assert "100% tests passed" in done.stdout
