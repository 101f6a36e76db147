"""Training when the task is not classification: numbers of any size, pictures that a sigmoid ends."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.scoring import Judge
from tests.compression_jobs.pipeline.conftest import export
from tests.compression_jobs.pipeline.passes.conftest import Studio


def studio_of(net: nn.Module, folder: Path, rows: dict[str, np.ndarray]) -> Studio:
    """A model and its rows, ready for passes."""
    np.savez(folder / "d.npz", **rows)
    export(net, rows["x"].shape[1:], folder / "m.onnx")
    data = Dataset.load(folder / "d.npz")
    calibration = data.rows("calibration")[0]
    graph = canonicalise(folder / "m.onnx", calibration[:8])
    return Studio(graph, data, Material(calibration, 1, data, graph))


def score(studio: Studio, net: nn.Module) -> float:
    x, y = studio.data.rows("validation")
    with torch.no_grad():
        return Judge(studio.data.task, x, y).accuracy(net(torch.from_numpy(x)).numpy()).value


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Answers around 1500, give or take 300, that a net of two layers knows well."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))
    with torch.no_grad():
        net[2].weight *= 700
        net[2].bias += 1500
        x = torch.randn(400, 6)
        y = net(x)
    folder = tmp_path_factory.mktemp("prices")
    return studio_of(net, folder, {"x": x.numpy(), "y": y.numpy()})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("distill", {"width": 0.75, "steps": 400}),
        ("prune_channels", {"ratio": 0.3, "steps": 200}),
        ("elastic", {"steps": 100}),
        ("qat", {"steps": 50}),
        ("prune", {"sparsity": 0.5, "steps": 200}),
        ("cluster", {"clusters": 16, "steps": 100}),
    ],
)
def test_numbers_of_any_size_are_learned(prices: Studio, name: str, options: dict[str, object]) -> None:
    assert score(prices, prices.net()) > 0.999
    assert score(prices, prices.run(name, **options)) > 0.8


def test_a_net_that_is_not_trained_keeps_its_weights_to_the_last_bit(prices: Studio) -> None:
    before, after = prices.net(), prices.run("qat", steps=0, keep_sparsity=False)
    assert torch.equal(before.layers()[1].bias, after.layers()[1].bias)


def test_an_autoencoder_that_a_sigmoid_ends_goes_on_rebuilding_its_rows(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    x = 1 / (1 + np.exp(-chance.normal(size=(300, 2)) @ chance.normal(size=(2, 12)) * 2))
    x[::5] = chance.uniform(size=(60, 12))
    anomalies = (np.arange(300) % 5 == 0).astype(np.int64)
    rows = {"x": x.astype(np.float32), "y": anomalies, "task": np.array("reconstruction")}
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2), nn.Linear(2, 12), nn.Sigmoid())
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        normal = torch.from_numpy(rows["x"][anomalies == 0])
        nn.functional.mse_loss(net(normal), normal).backward()
        optimizer.step()
    studio = studio_of(net, tmp_path, rows)
    before = score(studio, studio.net())
    assert before > 0.9
    trained = studio.run("prune_channels", ratio=0.2, steps=150)
    assert score(studio, trained) > before - 0.05
    shown = studio.data.rows("validation")[0]
    with torch.no_grad():
        rebuilt = trained(torch.from_numpy(shown)).numpy()
    assert np.abs(rebuilt - shown)[studio.data.rows("validation")[1] == 0].mean() < 0.1
