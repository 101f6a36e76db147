"""The ResNet-8 on digits that several benchmarks start from: scikit-learn's digits at 16 x 16, trained here."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import _training

ROWS = {"train": 1000, "calibration": 97, "validation": 300, "test": 400}
SHAPE = (1, 16, 16)
WIDTHS = (16, 32, 64)
EPOCHS, BATCH, RATE = 15, 32, 3e-3


def write(folder: Path, seed: int) -> tuple[Path, Path]:
    """`(model.onnx, digits.npz)` for a seed, which decides split, weights and order."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    x = np.kron((images.reshape(-1, 1, 8, 8) / 16).astype(np.float32), np.ones((1, 1, 2, 2), np.float32))
    split = np.repeat(list(ROWS), list(ROWS.values()))
    x, y = x[order], labels[order].astype(np.int64)
    np.savez(folder / "digits.npz", x=x, y=y, split=split)
    _train(x[split == "train"], y[split == "train"], seed, folder / "model.onnx")
    return folder / "model.onnx", folder / "digits.npz"


def _train(x: np.ndarray, y: np.ndarray, seed: int, path: Path) -> None:
    import torch

    torch.manual_seed(seed)
    net = resnet8()
    _training.fit(net, x, y, epochs=EPOCHS, batch=BATCH, rate=RATE)
    _training.export(net, SHAPE, path)


def resnet8() -> Any:
    """A stem and three residual blocks of 16, 32 and 64 channels: MLPerf Tiny's shape, about 77 000 weights."""
    from torch import nn

    def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> Any:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
        )

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(inputs, outputs, 3, stride), nn.ReLU(), conv(outputs, outputs))
            self.past = nn.Identity() if stride == 1 else conv(inputs, outputs, 1, stride)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.past(x))

    small, middle, large = WIDTHS
    blocks = [Block(small, small, 1), Block(small, middle, 2), Block(middle, large, 2)]
    ending = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(large, 10)]
    return nn.Sequential(conv(1, small), nn.ReLU(), *blocks, *ending)
