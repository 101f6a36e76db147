"""The search for boards that run MicroPython: a plan that fits, measured in its twin, and its self-test on both sides."""

import json
from pathlib import Path
from typing import Any

import pytest

from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.ladder import FLOAT, LADDERS, int8
from compression_jobs.pipeline.search import search
from device_agent.core import selftest
from device_agent.runtimes.plan.runtime import PlanRuntime
from tests.compression_jobs.pipeline.conftest import Digits
from tests.device_agent.runtimes.plan.machines import vm

BOARDS = ("rp2040", "esp32-s3")
IN_VM = """
from device_agent.core import selftest
from device_agent.runtimes.table import runtime
board = runtime("micropython")
board.load(FOLDER + "/model.plan", SIGNATURE)
with open(FOLDER + "/selftest.bin", "rb") as file:
    result = selftest.run(file, board)
print(result.passed, result.samples)
"""


@pytest.fixture(scope="module")
def found(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("boards")
    goals = [Goal(target=slug, min_accuracy=0.9, max_drop=0.03) for slug in BOARDS]
    with pytest.MonkeyPatch.context() as patch:
        steps = [FLOAT, int8(calibration="mse")]
        patch.setitem(LADDERS, "micropython", [steps])
        return search(goals, digits.model, digits.dataset, out=out), out


@pytest.mark.parametrize("slug", BOARDS)
def test_a_board_gets_a_plan_that_fits(found: Any, slug: str) -> None:
    results, out = found
    winner = results[slug].winner
    assert results[slug].met, results[slug].sentence
    assert winner.format == "plan"
    assert winner.bytes == (out / slug / "model.plan").stat().st_size
    assert 2048 < winner.peak_ram_bytes < 20_000
    assert winner.estimated_latency_us > 1000


def test_the_self_test_compares_bytes_and_passes_in_twin_and_vm(found: Any) -> None:
    folder = found[1] / "rp2040"
    signature = json.loads((folder / "signature.json").read_text())
    assert signature["inputs"][0]["shape"] == [1, 1, 8, 8]
    assert (signature["inputs"][0]["dtype"], signature["runtime"]) == ("int8", "micropython")
    assert signature["classes"] == [str(n) for n in range(10)]
    runtime = PlanRuntime()
    runtime.load(str(folder / "model.plan"), signature)
    with open(folder / "selftest.bin", "rb") as file:
        assert selftest.SelfTest(file).header.mode == "equal"
        file.seek(0)
        assert selftest.run(file, runtime).passed
    small = {
        name: [{k: spec[k] for k in ("dtype", "shape")} for spec in signature[name]]
        for name in ("inputs", "outputs")
    }
    done = vm("-c", IN_VM.replace("FOLDER", repr(str(folder))).replace("SIGNATURE", repr(small)), heap="128k")
    assert done.stdout.split() == ["True", "8"], done.stdout + done.stderr
