"""How good outputs are: accuracy, R² or anomaly AUC by task, with 95 % intervals and the paired drop.

`accuracy` is the word for every figure, and its `metric` says what it is: the share of right classes
(classification), R² (regression) or the area under the ROC curve of the reconstruction error (reconstruction).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.intervals import paired_drop, resampled, wilson

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The figure as JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


BEYOND = 0.01  # by how much rounding may push a chance over its ends
METRICS = {"classification": "accuracy", "regression": "r2", "reconstruction": "auc"}


@dataclass(frozen=True)
class Judge:
    """Scores outputs against the truth of the rows of one split."""

    task: str
    x: Array
    y: Array

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.y)

    @property
    def metric(self) -> str:
        """What its figures are: `accuracy`, `r2` or `auc`."""
        return METRICS[self.task]

    def accuracy(self, outputs: Array) -> Figure:
        """The score of `outputs` with its interval."""
        if self.task == "classification":
            right = self._right(outputs)
            return Figure(float(right.mean()), *wilson(int(right.sum()), len(right)))
        everything = np.arange(self.n)
        score = self._score(outputs)
        return Figure(score(everything), *resampled(score, self.n))

    def drop(self, reference: Array, outputs: Array) -> Figure:
        """How much worse `outputs` are than `reference` on the same rows."""
        if self.task == "classification":
            before, after = self._right(reference), self._right(outputs)
            return Figure(float(before.mean() - after.mean()), *paired_drop(before, after))
        before_score, after_score = self._score(reference), self._score(outputs)

        def difference(rows: Rows) -> float:
            return float(before_score(rows) - after_score(rows))

        low, high = resampled(difference, self.n)
        return Figure(difference(np.arange(self.n)), low, high)

    @property
    def one_class(self) -> int | None:
        """The class of all rows of a classification, when they have only one."""
        if self.task != "classification":
            return None
        kinds = np.unique(self.y)
        return int(kinds[0]) if len(kinds) == 1 else None

    def agreement(self, reference: Array, outputs: Array) -> float:
        """Share of rows with the same class, else R² of `outputs` against `reference`."""
        if self.task == "classification":
            return float((classes_of(reference) == classes_of(outputs)).mean())
        return _r2(_flat(reference), _flat(outputs))

    def _right(self, outputs: Array) -> npt.NDArray[np.bool_]:
        return np.asarray(classes_of(outputs) == self.y)

    def _score(self, outputs: Array) -> Any:
        if self.task == "regression":
            return _r2_of_rows(_flat(self.y), _flat(outputs))
        errors = ((_flat(self.x) - _flat(outputs)) ** 2).mean(axis=1)
        if len(np.unique(self.y)) < 2:
            raise Refused(
                "anomaly detection is judged by anomalies, and the rows to judge on hold only one kind",
                remedy="mark anomalies by 1 in y, in the validation and in the test rows",
            )
        return lambda rows: _area_under_roc(errors[rows], self.y[rows])


def classes_of(outputs: Array) -> Array:
    """The class each row of scores chooses; a single score is a probability of class 1."""
    scores = _flat(outputs)
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0] > 0.5).astype(np.int64)
    return np.asarray(scores.argmax(axis=1))


def refuse_logits(outputs: Array) -> None:
    """Raise Refused when the single score of a classifier is no probability."""
    scores = _flat(outputs)
    if scores.shape[1] == 1 and (scores.min() < -BEYOND or scores.max() > 1 + BEYOND):
        raise Refused(
            f"a single score is the chance of class 1, and this one goes from {scores.min():.3g} to {scores.max():.3g}",
            remedy="export the model with its sigmoid, or with one score a class",
        )


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1).astype(np.float64)


def _r2(truth: Array, answers: Array) -> float:
    total = float(((truth - truth.mean(axis=0)) ** 2).sum())
    missed = float(((truth - answers) ** 2).sum())
    return 1.0 - missed / total if total > 0 else float(missed == 0)


def _r2_of_rows(truth: Array, answers: Array) -> Callable[[Rows], float]:
    """R² of any choice of rows; what a thousand choices have in common is worked out once."""
    centred = truth - truth.mean(axis=0)
    missed, spread = ((truth - answers) ** 2).sum(axis=1), (centred**2).sum(axis=1)
    wide = centred.shape[1] > len(centred)
    products = centred @ centred.T if wide else None

    def score(rows: Rows) -> float:
        counts = np.bincount(rows, minlength=len(centred)).astype(np.float64)
        squared_sum = ((counts @ centred) ** 2).sum() if products is None else counts @ products @ counts
        total, wrong = float(counts @ spread - squared_sum / len(rows)), float(counts @ missed)
        # Rounding leaves a little where all rows are the same.
        return 1.0 - wrong / total if total > 1e-12 * float(counts @ spread) else float(wrong == 0)

    return score


def _area_under_roc(scores: Array, labels: Array) -> float:
    """Chance that an anomaly scores above a normal row (Mann-Whitney, ties count half)."""
    positive = labels == 1
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return 0.5
    _, places, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[places]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
