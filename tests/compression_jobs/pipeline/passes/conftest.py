"""A trained net on digits, ready for passes that train."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.net import Net
from compression_jobs.pipeline.graph.torch_export import export_net
from compression_jobs.pipeline.graph.torch_import import import_net
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.table import PASSES
from tests.compression_jobs.pipeline.conftest import Digits


@dataclass(frozen=True)
class Studio:
    """The trained model, its data, and what every test does with them."""

    graph: Graph
    data: Dataset
    material: Material

    def net(self) -> Net:
        return import_net(self.graph, self.material.calibration)

    def run(self, name: str, net: Net | None = None, **options: Any) -> Net:
        """The net after one pass."""
        entry = PASSES[name]
        return entry.apply(net or self.net(), entry.options.model_validate(options), self.material)  # type: ignore[no-any-return]

    def export(self, net: Net) -> Graph:
        return export_net(net, self.graph, self.material.calibration)

    def accuracy(self, net: Callable[[torch.Tensor], torch.Tensor]) -> float:
        x, y = self.data.rows("validation")
        with torch.no_grad():
            return float((net(torch.from_numpy(x)).numpy().argmax(1) == y).mean())


@pytest.fixture(scope="session")
def studio(digits: Digits) -> Studio:
    data = Dataset.load(digits.dataset)
    graph = canonicalise(digits.model, data.rows("calibration")[0][:8])
    return Studio(graph, data, Material(data.rows("calibration")[0], 1, data, graph))


@pytest.fixture(scope="session")
def float_accuracy(studio: Studio) -> float:
    return studio.accuracy(studio.net())


def weights_of(graph: Graph) -> dict[str, np.ndarray]:
    """The weights of each layer by its name."""
    layers = [node for node in graph.nodes if node.op_type in ("Conv", "Gemm")]
    return {node.name: np.asarray(graph.constant(node, 1)) for node in layers}
