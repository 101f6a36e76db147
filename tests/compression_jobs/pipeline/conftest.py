"""A small network really trained on handwritten digits, and files made of it: seconds, once a session."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROWS = {"train": 1000, "calibration": 100, "validation": 200, "test": 250}


@dataclass(frozen=True)
class Digits:
    """Paths of a trained float model and of its dataset."""

    model: Path
    dataset: Path
    shuffled_model: Path  # trained on shuffled labels: it knows nothing


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    folder = tmp_path_factory.mktemp("digits")
    x, y, split = digit_rows()
    np.savez(folder / "digits.npz", x=x, y=y, split=split)
    train = split == "train"
    shuffled = np.random.default_rng(1).permutation(y[train])
    for name, labels, epochs in (("model", y[train], 6), ("shuffled", shuffled, 1)):
        train_and_export(x[train], labels, epochs, folder / f"{name}.onnx")
    return Digits(folder / "model.onnx", folder / "digits.npz", folder / "shuffled.onnx")


def digit_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))[: sum(ROWS.values())]
    x = (images[order].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    return x, labels[order].astype(np.int64), np.repeat(list(ROWS), list(ROWS.values()))


def train_and_export(x: np.ndarray, y: np.ndarray, epochs: int, path: Path) -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = residual_net()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    export(net, (1, 8, 8), path)


def residual_net() -> "object":
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(16, 16), nn.ReLU(), conv(16, 16))

        def forward(self, x: object) -> object:
            return nn.functional.relu(self.body(x) + x)

    def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))

    return nn.Sequential(
        conv(1, 16),
        nn.ReLU(),
        Block(),
        conv(16, 32, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def export(net: object, shape: tuple[int, ...], path: Path) -> None:
    """With torch's old exporter, which takes a tenth of a second."""
    import torch

    net.eval()
    example = torch.zeros(1, *shape)
    torch.onnx.export(
        net, (example,), path, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"]
    )
