"""How benchmarks train the float nets they start from: Adam on cross entropy, one thread, exported as ONNX."""

from pathlib import Path
from typing import Any

import numpy as np


def fit(
    net: Any, x: np.ndarray, y: np.ndarray, *, epochs: int, batch: int, rate: float, cosine: bool = True
) -> None:
    """Train in place on rows x (float32) and labels y (int64); the rate falls to zero along a cosine, or stays."""
    import torch

    torch.set_num_threads(1)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    steps = epochs * -(-len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.0 if cosine else rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()


def export(net: Any, shape: tuple[int, ...], path: Path) -> None:
    """Write the net for rows of this shape."""
    import torch

    torch.onnx.export(net, (torch.zeros(1, *shape),), path, dynamo=False, opset_version=17, input_names=["x"])
