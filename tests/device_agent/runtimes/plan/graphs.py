"""Random graphs of one operator and the networks of MLPerf Tiny, each with raw rows and the answers of TFLM."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from compression_jobs.pipeline.emit import tflite
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from tests.compression_jobs.pipeline.graph import random_ops
from tests.compression_jobs.pipeline.graph.tflm import answers
from tests.compression_jobs.pipeline.mlperf_tiny import MODELS, ready

OPERATORS, NETWORKS = tuple(random_ops.OPERATORS), tuple(MODELS)
ROWS = 3


@dataclass(frozen=True)
class Case:
    """One graph, its file for TFLM, and rows for each of its inputs."""

    graph: q.QuantGraph
    content: bytes
    inputs: list[np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        """Raw rows; several inputs lie one after the other."""
        return np.concatenate([part.reshape(len(part), -1) for part in self.inputs], axis=1)


def cases(name: str, count: int) -> list[Case]:
    """`count` random graphs of one operator."""
    return [_case(name, seed) for seed in range(count)]


def _case(name: str, seed: int) -> Case:
    chance = np.random.default_rng((seed, *name.encode()))
    graph = random_ops.OPERATORS[name](chance)
    given = random_ops.rows(graph, chance, ROWS)
    for part in given.values():
        part[1] = chance.choice(np.array([-128, 127], np.int8), part[1].shape)
    return Case(graph, tflite.emit(graph), [given[name] for name in graph.inputs])


def network(name: str, rows: int = 2) -> Case:
    """A network as it is read from a ready `.tflite`."""
    content, given = ready(name)
    return Case(from_tflite(content), content, [given[:rows]])


def expected(found: list[Case], folder: Path) -> list[np.ndarray]:
    """What TensorFlow Lite Micro answers, as raw rows."""
    told = answers({str(i): (case.content, case.inputs) for i, case in enumerate(found)}, folder)
    return [told[str(i)].reshape(len(case.rows), -1) for i, case in enumerate(found)]


@cache
def plain(name: str) -> Case:
    """One graph of an operator."""
    return cases(name, 1)[0]
