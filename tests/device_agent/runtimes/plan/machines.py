"""Runs plans where they will run: in the twin, and in the MicroPython VM, many in one process."""

import subprocess
from pathlib import Path

import numpy as np

from compression_jobs.pipeline.emit.plan import emit
from device_agent.runtimes.plan.twin import Plan
from tests.device_agent.core.test_in_micropython import ROOT, micropython
from tests.device_agent.runtimes.plan.graphs import Case

IN_VM = "tests.device_agent.runtimes.plan.in_vm"


def write(cases: list[Case], folder: Path) -> None:
    for index, case in enumerate(cases):
        (folder / f"{index:04}.plan").write_bytes(emit(case.graph))
        (folder / f"{index:04}.in").write_bytes(case.rows.tobytes())


def in_twin(case: Case, path: Path) -> np.ndarray:
    plan = Plan()
    plan.load(str(path))
    return plan.run_rows([part.reshape(len(part), -1) for part in case.inputs])[0]


def vm(*arguments: str, heap: str = "8m") -> subprocess.CompletedProcess[str]:
    command = [micropython(), "-X", f"heapsize={heap}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def in_vm(cases: list[Case], folder: Path, mode: str) -> list[np.ndarray]:
    done = vm("-m", IN_VM, str(folder), mode)
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        np.frombuffer((folder / f"{index:04}.out").read_bytes(), np.int8).reshape(len(case.rows), -1)
        for index, case in enumerate(cases)
    ]
