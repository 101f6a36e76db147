"""What one answer of a model says: its class and confidence, or its numbers, and whether it was right."""

import math

CLASSIFICATION = "classification"
REGRESSION = "regression"


def flat(output: object) -> list[float]:
    """One output as a flat list of numbers; takes nested lists, arrays and numpy arrays."""
    if hasattr(output, "ravel"):
        return [float(value) for value in output.ravel()]
    values: list[float] = []
    for item in output:  # type: ignore[attr-defined]
        if isinstance(item, (int, float)):
            values.append(float(item))
        else:
            values.extend(flat(item))
    return values


def top_class(scores: list[float]) -> tuple[int, float]:
    """(class, confidence from 0 to 1) of one row of scores: probabilities, or logits, which go through softmax.

    A single score is the probability of class 1. Raises ValueError when a score is no number (NaN).
    """
    if not scores or any(score != score for score in scores):
        raise ValueError("the model answered with something that is no number")
    if len(scores) == 1:
        sure = min(max(scores[0], 0.0), 1.0)
        return (1, sure) if sure > 0.5 else (0, 1.0 - sure)
    best = 0
    for i, score in enumerate(scores):
        if score > scores[best]:
            best = i
    return best, _confidence(scores, scores[best])


def _confidence(scores: list[float], highest: float) -> float:
    total = sum(scores)
    # int8 outputs of a softmax add up to 1 only within their steps of 1/256.
    if min(scores) >= 0.0 and highest <= 1.0 and 0.9 <= total <= 1.1:
        return highest
    # float32 boards: exp of very negative numbers is 0, of the highest it is 1.
    return 1.0 / sum(math.exp(score - highest) for score in scores)


def true_class(y: object, names: list[str], count: int) -> int:
    """The class number a label means, by number or by name; raises ValueError when it names none."""
    if isinstance(y, str):
        if y in names:
            return names.index(y)
        raise ValueError("no class is called " + y)
    number = int(y)  # type: ignore[call-overload]
    if number != y or not 0 <= number < max(count, 2):
        raise ValueError("y is %s, classes are 0 to %d" % (y, max(count, 2) - 1))
    return int(number)


def errors(truth: object, values: "list[float] | tuple[float, ...]") -> tuple[float, float]:
    """(mean absolute, mean squared) error of one answer against the true value or values."""
    wanted = [float(truth)] if isinstance(truth, (int, float)) else flat(truth)
    if len(wanted) != len(values):
        raise ValueError("y has %d values, the model answers %d" % (len(wanted), len(values)))
    gaps = [wanted[i] - values[i] for i in range(len(values))]
    return sum(abs(gap) for gap in gaps) / len(gaps), sum(gap * gap for gap in gaps) / len(gaps)
