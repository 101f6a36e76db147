"""Images and labels in MNIST's IDX format (LeCun), plain or gzipped, as a dataset of the pipeline."""

import gzip
import struct
from pathlib import Path

import numpy as np

PARTS = {"train": "train", "test": "t10k"}
VALIDATION_SHARE = 1 / 6  # 10 000 of 60 000, as many as there are test rows
CALIBRATION_ROWS = 256


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 1, h, w) as float32 from 0 to 1, and labels (n,) as int64."""
    images = _array(folder, f"{PARTS[part]}-images-idx3-ubyte")
    labels = _array(folder, f"{PARTS[part]}-labels-idx1-ubyte")
    return (images[:, None] / 255).astype(np.float32), labels.astype(np.int64)


def _array(folder: Path, name: str) -> np.ndarray:
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not packed.exists():
        raise SystemExit(f"{plain}[.gz]: no such file; --idx takes a folder with the four files of MNIST")
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    rank = data[3]
    shape = struct.unpack_from(f">{rank}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write(folder: Path, path: Path, seed: int, rows: int | None) -> None:
    """Write the `.npz`: the training file split by `seed` into train, calibration and validation; all test rows."""
    x, y = read(folder, "train")
    order = np.random.default_rng(seed).permutation(len(x))[:rows]
    held = round(len(order) * VALIDATION_SHARE)
    calibration = min(CALIBRATION_ROWS, len(order) // 10)
    counts = (len(order) - held - calibration, calibration, held)
    test_x, test_y = read(folder, "test")
    split = np.repeat(["train", "calibration", "validation", "test"], (*counts, len(test_x)))
    np.savez(path, x=np.concatenate([x[order], test_x]), y=np.concatenate([y[order], test_y]), split=split)
