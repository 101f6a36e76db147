"""Which kernels a board takes: machine code of its own processor, else the same kernels as bytecode."""

import shutil
import subprocess
from pathlib import Path

import pytest

from device_agent.compiled import ROOT, compile_agent
from tests.device_agent import board
from tests.device_agent.core.test_in_micropython import micropython

RUN = """
import sys
from device_agent.runtimes.plan.interpreter import Plan
plan = Plan()
plan.load(sys.argv[1], True)
answer = bytearray(plan.outputs[0][1])
with open(sys.argv[2], "rb") as file:
    plan.run(file.read(), answer)
with open(sys.argv[3], "wb") as file:
    file.write(answer)
print(plan._kernels.__name__)
"""


@pytest.mark.parametrize(("target", "kernels"), [("unix", "kernels"), ("rp2040", "bytecode")])
def test_machine_code_of_another_processor_is_replaced_by_bytecode(
    target: str, kernels: str, tmp_path: Path
) -> None:
    code, plan, given, answer = (tmp_path / name for name in ("code", "a.plan", "in.bin", "out.bin"))
    compile_agent(tmp_path / "compiled", target)
    plans = code / "device_agent" / "runtimes" / "plan"
    shutil.copytree(tmp_path / "compiled" / "device_agent" / "runtimes" / "plan", plans)
    for name in ("interpreter", "kinds", "layout"):  # under the names of the source
        (plans / f"{name}.mpy").unlink(missing_ok=True)
        shutil.copy(ROOT / "device_agent" / "runtimes" / "plan" / f"{name}.py", plans)
    plan.write_bytes(board.dense_plan())
    row = board.rows(1)
    given.write_bytes(row.tobytes())
    command = [micropython(), "-X", "heapsize=256k", "-c", RUN, plan, given, answer]
    done = subprocess.run(command, cwd=code, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"device_agent.runtimes.plan.{kernels}"
    assert answer.read_bytes() == board.answers(board.dense_plan(), row, tmp_path).tobytes()
