"""A board for tests: the compiled agent in the MicroPython VM, and a plan with its self-test to install on it."""

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from compression_jobs.pipeline.emit.plan import emit
from compression_jobs.pipeline.graph import quantgraph as q
from device_agent.core import selftest
from device_agent.runtimes.plan.twin import Plan
from tests.device_agent.conftest import provisioning
from tests.device_agent.core.test_in_micropython import micropython
from tests.device_agent.server import keys

TARGET = "rp2040"
INPUTS = 1024
HIDDEN = 300
CLASSES = 10


@cache
def dense_plan(seed: int = 1, hidden: int = HIDDEN) -> bytes:
    """Two dense layers of random weights: 300 KB, unless fewer hidden values are wanted."""
    chance = np.random.default_rng(seed)

    def layer(name: str, source: str, target: str, wide: int, deep: int) -> q.FullyConnected:
        values = chance.integers(-127, 128, (deep, wide)).astype(np.int8)
        weights = q.Weights(values, np.full(deep, 0.01), np.zeros(deep, np.int32))
        return q.FullyConnected(name, (source,), target, weights, "none")

    tensors = {
        "x": q.Tensor("x", (1, INPUTS), 0.05, 0),
        "h": q.Tensor("h", (1, hidden), 0.5, 0),
        "y": q.Tensor("y", (1, CLASSES), 2.0, 0),
    }
    layers = [layer("fc1", "x", "h", INPUTS, hidden), layer("fc2", "h", "y", hidden, CLASSES)]
    return emit(q.QuantGraph(tensors, layers, ["x"], ["y"]))


def rows(count: int) -> np.ndarray:
    """Inputs of the plan."""
    return np.random.default_rng(7).integers(-128, 128, (count, INPUTS)).astype(np.int8)


def answers(plan: bytes, inputs: np.ndarray, folder: Path) -> np.ndarray:
    """What the twin answers."""
    path = folder / "twin.plan"
    path.write_bytes(plan)
    twin = Plan()
    twin.load(str(path))
    return np.asarray(twin.run_rows([inputs])[0]).reshape(len(inputs), -1)


def self_test(plan: bytes, folder: Path, wrong: bool = False) -> bytes:
    """A self-test of equal bytes."""
    given = rows(8)
    expected = answers(plan, given, folder) ^ (1 if wrong else 0)
    samples = [([a.tobytes()], [b.tobytes()]) for a, b in zip(given, expected, strict=True)]
    specs = [{"dtype": "int8", "shape": [1, INPUTS]}], [{"dtype": "int8", "shape": [1, CLASSES]}]
    file = io.BytesIO()
    selftest.write(file, *specs, {"mode": "equal", "value": 0}, samples, True)
    return file.getvalue()


def write_rows(path: Path, plan: bytes) -> None:
    """Lines of the application: raw inputs and the class the twin answers."""
    given = rows(40)
    truth = answers(plan, given, path.parent).argmax(axis=1)
    with path.open("w") as file:
        for row, label in zip(given, truth, strict=True):
            file.write(json.dumps({"x": row.tobytes().hex(), "y": int(label)}) + "\n")


def provision(state: Path, broker: dict[str, Any]) -> None:
    """Write the provisioning file of the board."""
    state.mkdir(exist_ok=True)
    fields = provisioning(
        runtime="micropython", target=TARGET, chunk_bytes=4096, keys=keys(), report_s=1, **broker
    )
    (state / "provision.json").write_text(json.dumps(fields))


def running(code: Path, *arguments: str, heap: str) -> AbstractContextManager["subprocess.Popen[str]"]:
    """The agent in the VM, from the folder it was compiled to; killed at the end, as by a power cut."""
    start = "import sys; from device_agent.board_host import main; sys.exit(main(sys.argv[1:]))"
    return powered(code, "-c", start, *arguments, heap=heap)


@contextmanager
def powered(folder: Path, *arguments: str, heap: str) -> Iterator["subprocess.Popen[str]"]:
    """The VM in a folder, in place of a board with its file system; killed at the end, as by a power cut.

    Where the agent asks to be started again, it is.
    """
    again = ["sh", "-c", 'while "$@"; [ $? = 3 ]; do :; done', "sh"]
    command = [*again, micropython(), "-X", f"heapsize={heap}", *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        print(process.communicate()[0])
