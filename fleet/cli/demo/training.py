"""Trains the demonstration's models on scikit-learn's digits; run as a child: `python -m fleet.cli.demo.training`.

The rows are dealt once, by seed 0: 1000 train, 100 calibration, 200 validation, 250 test; the last 247 of 1,797 are
never uploaded, they are what the devices are asked in the field.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

ROWS = {"train": 1000, "calibration": 100, "validation": 200, "test": 250}
# One fixed permutation without a fixed point: a model trained on it is wrong about every digit.
PERMUTATION = (3, 7, 0, 9, 5, 2, 8, 4, 1, 6)
LABELS = ("true", "permuted", "shuffled")
EPOCHS = 12


def split_digits() -> tuple[dict[str, tuple["np.ndarray", "np.ndarray"]], tuple["np.ndarray", "np.ndarray"]]:
    """The uploaded rows by split, and the 247 rows kept for the field; x is float32 (n, 1, 8, 8) in [0, 1]."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = (digits.images[order] / 16.0).astype(np.float32)[:, None]
    y = digits.target[order].astype(np.int64)
    parts, start = {}, 0
    for name, count in ROWS.items():
        parts[name] = (x[start : start + count], y[start : start + count])
        start += count
    return parts, (x[start:], y[start:])


def relabel(y: "np.ndarray", labels: str, seed: int) -> "np.ndarray":
    """The labels a story wants: true, under one fixed permutation of the classes, or shuffled between rows."""
    import numpy as np

    if labels == "permuted":
        permuted: np.ndarray = np.asarray(PERMUTATION, dtype=np.int64)[y]
        return permuted
    if labels == "shuffled":
        return np.random.default_rng(seed + 1).permutation(y)
    return y


def residual_network() -> "torch.nn.Module":
    """A residual CNN of about 28,000 parameters for 1 x 8 x 8 images and ten classes."""
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
            )
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.relu(x + self.body(x))
            return result

    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16)),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), Block(32)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def train(x: "np.ndarray", y: "np.ndarray", seed: int) -> "torch.nn.Module":
    """Real training on the train rows only: Adam, one-cycle rate, batches of 50."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = residual_network()
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    batches = len(x) // 50
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=EPOCHS * batches)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x))[: batches * 50].split(50):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return network.eval()


def export(network: "torch.nn.Module", path: Path) -> None:
    """Torch's default exporter, which writes `.onnx` and `.onnx.data`, batch size left free."""
    import torch

    example = torch.zeros(2, 1, 8, 8)
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        network,
        (example,),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        verbose=False,
    )


def write_dataset(path: Path, labels: str, seed: int) -> dict[str, tuple["np.ndarray", "np.ndarray"]]:
    """Write `x`, `y`, `split` as `.npz`, relabelled; return the parts as written."""
    import numpy as np

    parts, _ = split_digits()
    told = {name: (x, relabel(y, labels, seed)) for name, (x, y) in parts.items()}
    np.savez_compressed(
        path,
        x=np.concatenate([x for x, _ in told.values()]),
        y=np.concatenate([y for _, y in told.values()]),
        split=np.repeat(list(told), [len(y) for _, y in told.values()]),
    )
    return told


def write_field_rows(path: Path) -> None:
    """Write the 247 rows that only devices see, as JSON: the workload needs no NumPy."""
    _, (x, y) = split_digits()
    path.write_text(json.dumps({"x": x.round(5).tolist(), "y": y.tolist()}))


def main() -> None:
    """Train one version and write model and dataset into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", choices=LABELS, default="true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    parts = write_dataset(options.folder / "digits.npz", options.labels, options.seed)
    write_field_rows(options.folder / "field.json")
    network: Any = train(*parts["train"], seed=options.seed)
    export(network, options.folder / "digits.onnx")


if __name__ == "__main__":
    main()
