"""The data of a job: one `.npz` with what the model reads, what it should answer, and who may see which row.

| array | what |
|---|---|
| `x` | rows first, as the model takes them (already normalised); numbers; streams for a model that keeps a state (`streams`) |
| `y` | integers 0..k-1: classification; floats, one row each: regression; absent: reconstruction |
| `split` | optional, one a row: the words train, calibration, validation, test (or val, calib), or 0 to 3 in that order |
| `class_names` | optional texts, one a class |
| `task` | optional text, when the rule above guesses wrong; with `reconstruction`, `y` marks anomalies by 1 |

Without `split` the rows are dealt out by a fixed seed, class by class: 60 % train, 10 % calibration, 15 %
validation, 15 % test; `has_split` is then False, because the model may have been trained on any of them.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression_jobs.pipeline import streams
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.npz import read_arrays

Array = NDArray[Any]

SPLITS = ("train", "calibration", "validation", "test")
OTHER_WORDS = {"val": "validation", "valid": "validation", "calib": "calibration", "cal": "calibration"}
NEEDED_SPLITS = SPLITS[1:]
JUDGED_SPLITS = ("validation", "test")
TASKS = ("classification", "regression", "reconstruction")
SHARES = (0.60, 0.10, 0.15, 0.15)
GOLDEN_RATIO = (5**0.5 - 1) / 2
SPLIT_SEED = 20_240_229
MIN_ROWS = 10
MAX_CLASSES = 100_000
MAX_NAME_CHARACTERS = 200
ROWS_A_BLOCK = 4096


@dataclass(frozen=True)
class Dataset:
    """A checked dataset; `split_of` holds the index in SPLITS of each row."""

    x: Array
    y: Array | None
    task: str
    class_names: list[str]
    split_of: NDArray[np.int8]
    has_split: bool
    sha256: str

    @classmethod
    def load(cls, path: Path | str) -> "Dataset":
        """Read and check a dataset; raises Refused with the reason and the way out."""
        arrays = read_arrays(path, ("x", "y", "split", "class_names", "task"))
        x = _checked_x(arrays.get("x"))
        task = _task(arrays.get("task"), arrays.get("y"))
        if "task" not in arrays:
            _refuse_one_hot(arrays.get("y"))
        y = _checked_y(arrays.get("y"), task, len(x))
        names = _checked_names(arrays.get("class_names"), y, task)
        given = arrays.get("split")
        split_of = _default_split(y, task, len(x)) if given is None else _checked_split(given, len(x))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(x, y, task, names, split_of, given is not None, digest)

    def rows(self, split: str) -> tuple[Array, Array]:
        """`(x, y)` of one split; in reconstruction `y` marks anomalies and is all 0 when none were given."""
        chosen = self.split_of == SPLITS.index(split)
        x = self.x[chosen]
        return x, np.zeros(len(x), np.int64) if self.y is None else self.y[chosen]

    @cached_property
    def classes(self) -> int:
        """The number of classes; 0 when the task has none."""
        if self.task != "classification" or self.y is None:
            return 0
        return len(self.class_names) or int(self.y.max()) + 1

    @property
    def row_counts(self) -> dict[str, int]:
        """The number of rows of each split."""
        counts = np.bincount(self.split_of, minlength=len(SPLITS))
        return {name: int(count) for name, count in zip(SPLITS, counts, strict=True)}


def describe_dataset(path: Path | str) -> dict[str, Any]:
    """What a page shows of a dataset, as JSON; raises Refused when it cannot be used."""
    data = Dataset.load(path)
    return {
        "x": {"dtype": str(data.x.dtype), "shape": list(data.x.shape)},
        "y": None if data.y is None else {"dtype": str(data.y.dtype), "shape": list(data.y.shape)},
        "task": data.task,
        "classes": data.classes,
        "class_names": data.class_names,
        "label_counts": _label_counts(data),
        "rows": data.row_counts,
        "anomalies": _anomalies(data),
        "has_split": data.has_split,
        "x_stats": _statistics(data.x),
        "sha256": data.sha256,
        "bytes": Path(path).stat().st_size,
    }


def _label_counts(data: Dataset) -> list[int]:
    if data.task != "classification" or data.y is None:
        return []
    return [int(count) for count in np.bincount(data.y, minlength=data.classes)]


def _anomalies(data: Dataset) -> dict[str, int]:
    """How many rows of each split are anomalies, in reconstruction."""
    if data.task != "reconstruction":
        return {}
    return {split: int(data.rows(split)[1].sum()) for split in SPLITS}


def _refuse_unjudged(facts: dict[str, Any]) -> None:
    """Anomaly detection is judged by how far anomalies stand out from normal rows."""
    found, rows = facts.get("anomalies") or {}, facts["rows"]
    for split in (name for name in JUDGED_SPLITS if name in found):
        if not 0 < found[split] < rows[split]:
            raise Refused(
                f"{found[split]} of the {rows[split]} {split} rows are anomalies, and a model is judged by how it tells "
                "the two kinds apart",
                remedy="mark anomalies by 1 and normal rows by 0 in y, with both kinds in validation and test",
            )


def check_pair(model_facts: dict[str, Any], dataset_facts: dict[str, Any]) -> None:
    """Raise Refused when the model described cannot be fed with, or judged by, the dataset described."""
    if len(model_facts["inputs"]) != 1:
        names = ", ".join(port["name"] for port in model_facts["inputs"])
        raise Refused(f"the model has {len(model_facts['inputs'])} inputs ({names}), the dataset has one x")
    _check_input(model_facts["inputs"][0], dataset_facts["x"], model_facts)
    scores = [port for port in model_facts["outputs"] if "float" in port["dtype"] or "int8" in port["dtype"]]
    if not scores:
        raise Refused("the model has no output of floats", remedy="export it with its scores as an output")
    _check_output(scores[0], dataset_facts)
    _refuse_unjudged(dataset_facts)


def _checked_x(x: Array | None) -> Array:
    if x is None:
        raise Refused("the dataset has no x", remedy="save it with numpy.savez(path, x=..., y=...)")
    if x.dtype.kind not in "fiub":
        raise Refused(f"x has dtype {x.dtype}; numbers are needed")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise Refused(f"x has shape {x.shape}; rows first and at least one number a row are needed")
    if len(x) < MIN_ROWS:
        raise Refused(f"x has {len(x)} rows; at least {MIN_ROWS} are needed")
    if x.dtype.kind == "f":
        _refuse_not_finite("x", x)
        with np.errstate(over="ignore"):
            x = x.astype(np.float32, copy=False)  # what every model here reads
        _refuse_not_finite("x as float32", x)
    return x


def _refuse_not_finite(name: str, array: Array) -> None:
    bad = [
        start + row
        for start in range(0, len(array), ROWS_A_BLOCK)
        for row in _rows_not_finite(array[start : start + ROWS_A_BLOCK])
    ]
    if bad:
        raise Refused(
            f"{name} holds NaN or infinity in {len(bad)} rows, the first is row {bad[0]}",
            remedy="remove those rows or fill the gaps",
        )


def _rows_not_finite(block: Array) -> list[int]:
    finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
    return [int(row) for row in np.flatnonzero(~finite)]


def _task(given: Array | None, y: Array | None) -> str:
    if given is None:
        if y is None:
            return "reconstruction"
        return "regression" if y.dtype.kind == "f" else "classification"
    word = _texts(given)[0] if given.size == 1 else ""
    if word not in TASKS:
        raise Refused(f"task is {word[:40]!r}", remedy=f"give one of {', '.join(TASKS)}, or leave it out")
    return word


def _refuse_one_hot(y: Array | None) -> None:
    """Floats make a regression, but nobody wants R² of one-hot rows."""
    if y is None or y.dtype.kind != "f" or y.ndim != 2 or y.shape[1] < 2 or not len(y):
        return
    if ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        raise Refused(
            f"y has shape {y.shape} and looks one-hot; labels are one class number a row",
            remedy="save y.argmax(axis=1), or task='regression' if these are numbers to come close to",
        )


def _checked_y(y: Array | None, task: str, rows: int) -> Array | None:
    if y is None:
        if task == "reconstruction":
            return None
        raise Refused(f"the task is {task} but the dataset has no y")
    if len(y.shape) == 0 or len(y) != rows:
        raise Refused(f"y has shape {y.shape} but x has {rows} rows", remedy="give one y for each row of x")
    if task == "regression":
        return _checked_values(y)
    return _checked_labels(y, task)


def _checked_values(y: Array) -> Array:
    if y.dtype.kind not in "fiu":
        raise Refused(f"y has dtype {y.dtype}; numbers are needed for regression")
    if y.size == 0:
        raise Refused(f"y has shape {y.shape}, which is no number a row")
    with np.errstate(over="ignore"):
        values = y.astype(np.float32)
    _refuse_not_finite("y", values)
    return values.reshape(len(values), -1)


def _checked_labels(y: Array, task: str) -> Array:
    if y.dtype.kind not in "iub":
        raise Refused(f"y has dtype {y.dtype}; labels must be integers", remedy="save y.astype('int64')")
    if y.size != len(y):
        raise Refused(
            f"y has shape {y.shape}; labels are one class number a row",
            remedy="for one-hot rows save y.argmax(axis=1)",
        )
    labels = y.reshape(-1)
    highest = 1 if task == "reconstruction" else MAX_CLASSES - 1
    bad = np.flatnonzero((labels < 0) | (labels > highest))
    if bad.size:
        raise Refused(
            f"{bad.size} labels are out of range, the first is {int(labels[bad[0]])} in row {int(bad[0])}",
            remedy=f"labels go from 0 to {highest}"
            if task == "reconstruction"
            else "number the classes from 0",
        )
    return labels.astype(np.int64)


def _checked_names(names: Array | None, y: Array | None, task: str) -> list[str]:
    if names is None or task != "classification" or y is None:
        return []
    texts = _texts(names)
    if names.ndim != 1 or len(texts) > MAX_CLASSES or len(set(texts)) != len(texts):
        raise Refused("class_names must be a plain list of different texts")
    highest = int(y.max())
    if highest >= len(texts):
        raise Refused(f"labels are out of range: label {highest} has no name, class_names holds {len(texts)}")
    return texts


def _texts(array: Array) -> list[str]:
    if array.dtype.kind not in "US":
        raise Refused(f"texts are needed, not {array.dtype}", remedy="save an array of str")
    if array.dtype.kind == "S":
        return [bytes(item).decode("utf-8", "replace")[:MAX_NAME_CHARACTERS] for item in array.reshape(-1)]
    return [str(item)[:MAX_NAME_CHARACTERS] for item in array.reshape(-1)]


def _checked_split(split: Array, rows: int) -> NDArray[np.int8]:
    if split.shape != (rows,):
        raise Refused(
            f"split has shape {split.shape} but x has {rows} rows", remedy="give one word for each row"
        )
    if split.dtype.kind in "iub":
        if split.min() < 0 or split.max() >= len(SPLITS):
            raise Refused(
                f"split goes from {split.min()} to {split.max()}", remedy=f"0 to 3 mean {', '.join(SPLITS)}"
            )
        codes = split.astype(np.int8)
    else:
        codes = _split_codes(split)
    present = np.bincount(codes, minlength=len(SPLITS))
    empty = [name for name in NEEDED_SPLITS if present[SPLITS.index(name)] == 0]
    if empty:
        raise Refused(
            f"split has no rows for {' and '.join(empty)}",
            remedy="every decision needs calibration, validation and test rows; or leave split out",
        )
    return codes


def _split_codes(split: Array) -> NDArray[np.int8]:
    words, places = np.unique(split, return_inverse=True)
    names = [OTHER_WORDS.get(word.strip().lower(), word.strip().lower()) for word in _texts(words)]
    unknown = [name for name in names if name not in SPLITS]
    if unknown:
        raise Refused(f"split holds {unknown[0][:40]!r}", remedy=f"the words are {', '.join(SPLITS)}")
    return np.array([SPLITS.index(name) for name in names], np.int8)[places]


def _default_split(y: Array | None, task: str, rows: int) -> NDArray[np.int8]:
    """Deal the rows out by the shares, shuffled by a fixed seed, each class in turn."""
    order = np.random.default_rng(SPLIT_SEED).permutation(rows)
    if y is not None and task != "regression":
        order = order[np.argsort(y[order], kind="stable")]
    # Multiples of the golden ratio fill 0 to 1 evenly, also along any run of neighbours, so along each class.
    positions = np.arange(rows) * GOLDEN_RATIO % 1
    codes = np.searchsorted(np.cumsum(SHARES)[:-1], positions, side="right").astype(np.int8)
    split = np.empty(rows, np.int8)
    split[order] = codes
    return split


def _statistics(x: Array) -> dict[str, float]:
    total, squares = 0.0, 0.0
    for start in range(0, len(x), ROWS_A_BLOCK):
        block = x[start : start + ROWS_A_BLOCK].astype(np.float64)
        total += float(block.sum())
        squares += float((block**2).sum())
    mean = total / x.size
    spread = max(squares / x.size - mean**2, 0.0) ** 0.5
    return {"mean": mean, "std": spread, "min": float(x.min()), "max": float(x.max())}


def _check_input(port: dict[str, Any], x: dict[str, Any], model: dict[str, Any]) -> None:
    wanted, row = port["shape"][1:], x["shape"][1:]
    if model.get("state_bytes") and not streams.count(row, wanted):
        raise Refused(
            f"a row of x has shape {row}, and the model keeps a state and takes {wanted} a step",
            remedy=f"save x as streams: rows, steps, {', '.join(map(str, wanted))}",
        )
    fits = len(wanted) == len(row) and all(want in (-1, have) for want, have in zip(wanted, row, strict=True))
    fits = fits or bool(model.get("state_bytes"))
    if not fits:
        raise Refused(
            f"a row of x has shape {row}, the model's input {port['name']} takes {wanted}",
            remedy="save x as the model takes it, rows first (mind channels first or last)",
        )
    # A quantised .tflite states how floats become its integers; the runtime does that.
    converts = model["format"] == "tflite" and x["dtype"] == "float32" and port["dtype"] in ("int8", "uint8")
    if x["dtype"] != port["dtype"] and not converts:
        raise Refused(
            f"x is {x['dtype']}, the model's input {port['name']} takes {port['dtype']}",
            remedy=f"scale x as in training and save x.astype({port['dtype']!r})",
        )


def _check_output(port: dict[str, Any], data: dict[str, Any]) -> None:
    sizes = port["shape"][1:]
    if -1 in sizes:
        return
    width = int(np.prod(sizes))
    if data["task"] == "classification":
        meaning, needed = "classes", data["classes"]
        # A single score is the chance of class 1.
        wrong = width < needed or (data["class_names"] and width != needed)
        wrong = wrong and not (width == 1 and needed <= 2)
    elif data["task"] == "regression":
        needed = int(np.prod(data["y"]["shape"][1:]))
        wrong, meaning = width != needed, "values a row of y"
    else:
        needed = int(np.prod(data["x"]["shape"][1:]))
        wrong, meaning = width != needed, "values a row of x, which it should reconstruct"
    if wrong:
        floats = data["task"] == "regression" and needed == 1
        raise Refused(
            f"the model's output {port['name']} has {width} values, the dataset has {needed} {meaning}",
            remedy="floats in y make a regression; save y.astype('int64') if they are class numbers"
            if floats
            else "use the dataset that belongs to this model",
        )
