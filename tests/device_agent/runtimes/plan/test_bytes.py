"""The same bytes everywhere: TensorFlow Lite Micro, the NumPy twin, and the kernels in the MicroPython VM."""

from pathlib import Path

import numpy as np
import pytest

from tests.device_agent.runtimes.plan.graphs import NETWORKS, OPERATORS, Case, cases, expected, network
from tests.device_agent.runtimes.plan.machines import in_twin, in_vm, write

pytest.importorskip("tflite_micro")
MODES = ("ram", "stream", "portable")


def check(found: list[Case], folder: Path, modes: tuple[str, ...] = MODES) -> None:
    write(found, folder)
    wanted = expected(found, folder)
    for index, case in enumerate(found):
        assert np.array_equal(in_twin(case, folder / f"{index:04}.plan"), wanted[index]), case.graph
    for mode in modes:
        for case, answer, right in zip(found, in_vm(found, folder, mode), wanted, strict=True):
            assert np.array_equal(answer, right), (mode, case.graph)


def test_every_operator_over_random_shapes_gives_the_bytes_of_tflm(tmp_path: Path) -> None:
    check([case for name in OPERATORS for case in cases(name, 20)], tmp_path)


def test_the_networks_of_mlperf_tiny_give_the_bytes_of_tflm(tmp_path: Path) -> None:
    check([network(name) for name in NETWORKS], tmp_path, ("ram", "stream"))


@pytest.mark.full
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_over_many_random_shapes_gives_the_bytes_of_tflm(name: str, tmp_path: Path) -> None:
    check(cases(name, 300), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", ["ds_cnn", "autoencoder"])
def test_a_network_runs_as_bytecode_too(name: str, tmp_path: Path) -> None:
    check([network(name, 1)], tmp_path, ("portable",))
