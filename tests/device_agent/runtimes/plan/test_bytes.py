"""The same bytes everywhere: integer reference, NumPy twin, and the kernels in the MicroPython VM."""

from pathlib import Path

import numpy as np
import pytest

from tests.compression_jobs.pipeline.mlperf_tiny import MODELS
from tests.device_agent.runtimes.plan.graphs import OPERATORS, Graph, cases, expected, network
from tests.device_agent.runtimes.plan.machines import in_twin, in_vm, write

MODES = ("ram", "stream", "portable")


def check(graphs: list[Graph], folder: Path, modes: tuple[str, ...] = MODES) -> None:
    write(graphs, folder)
    wanted = [expected(*graph) for graph in graphs]
    for index, graph in enumerate(graphs):
        assert np.array_equal(in_twin(graph, folder / f"{index:04}.plan"), wanted[index]), graph[0].ops[0]
    for mode in modes:
        for (graph, _), answer, right in zip(graphs, in_vm(graphs, folder, mode), wanted, strict=True):
            assert np.array_equal(answer, right), (mode, graph.ops[0])


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_gives_the_bytes_of_the_reference(name: str, tmp_path: Path) -> None:
    check(cases(name, 25), tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_gives_the_bytes_of_the_reference(name: str, tmp_path: Path) -> None:
    graph, rows = network(name)
    assert len(np.unique(expected(graph, rows))) > 1
    check([(graph, rows)], tmp_path, ("ram", "stream"))


@pytest.mark.full
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_gives_the_bytes_of_the_reference_over_many_shapes(name: str, tmp_path: Path) -> None:
    check(cases(name, 800), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", ["ds_cnn", "autoencoder"])
def test_a_network_runs_as_bytecode_too(name: str, tmp_path: Path) -> None:
    check([network(name)], tmp_path, ("portable",))
