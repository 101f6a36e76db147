"""From a ready `.tflite` to numbers on a board: converted, run by both command lines, within the heap that was stated."""

from pathlib import Path

import numpy as np
import pytest

from compression_jobs.pipeline.__main__ import main
from device_agent.runtimes.plan.twin import Plan
from tests.device_agent.runtimes.plan.graphs import NETWORKS, expected, network
from tests.device_agent.runtimes.plan.machines import vm
from tests.device_agent.runtimes.plan.test_plan_files import run_micropython, run_python

HEAP_USED = """
import gc
from device_agent.runtimes.plan import layout  # a board forgets its code after loading
from device_agent.runtimes.plan.runtime import PlanRuntime
runtime = PlanRuntime()
gc.collect()
before = gc.mem_alloc()
runtime.load("NAME.plan", {})
with open("NAME.in", "rb") as file:
    runtime.run_raw([file.read(len(b)) for b in runtime._inputs])
gc.collect()
print(runtime._plan.streams, gc.mem_alloc() - before)
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NAME.plan, written by the command, and NAME.in for each network."""
    folder = tmp_path_factory.mktemp("ready")
    for name in NETWORKS:
        case = network(name)
        (folder / f"{name}.tflite").write_bytes(case.content)
        (folder / f"{name}.in").write_bytes(case.rows.tobytes())
        arguments = [str(folder / f"{name}.tflite"), "--to", "plan", "--out", str(folder / f"{name}.plan")]
        assert main(["convert", *arguments]) == 0
    return folder


@pytest.mark.parametrize("run", [run_python, run_micropython])
def test_the_command_lines_give_the_bytes_of_tflm(run, converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    for name, right in zip(NETWORKS, expected([network(name) for name in NETWORKS], tmp_path), strict=True):
        out = tmp_path / "out.bin"
        done = run(str(converted / f"{name}.plan"), str(converted / f"{name}.in"), str(out))
        assert done.returncode == 0, done.stderr
        assert np.array_equal(np.fromfile(out, np.int8).reshape(right.shape), right), name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_board_needs_no_more_heap_than_was_stated(name: str, converted: Path) -> None:
    plan = Plan()
    plan.load(str(converted / f"{name}.plan"))
    # Room for the code, the arena and not for the weights: they are streamed.
    heap = plan.heap_bytes + 88 * 1024
    done = vm("-c", HEAP_USED.replace("NAME", str(converted / name)), heap=str(heap))
    assert done.returncode == 0, done.stdout + done.stderr
    streams, used = done.stdout.split()
    assert streams == "True"
    assert plan.arena_bytes < int(used) <= plan.heap_bytes
