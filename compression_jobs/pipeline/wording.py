"""Scores in words: shares as percentages and points, R² and the area under the ROC curve as plain numbers."""

from collections.abc import Mapping
from typing import Any

NAMES = {"r2": "R²", "auc": "AUC"}  # of metrics that are no shares


def score(figure: Mapping[str, Any], number: float | None = None) -> str:
    """`96.0%` or `R² 0.482`: the value of a figure, or another number in its unit."""
    value = figure["value"] if number is None else number
    name = NAMES.get(figure.get("metric", ""))
    return f"{name} {value:.3f}" if name else f"{value:.1%}"


def verdict(figure: Mapping[str, Any]) -> str:
    """What a model is, by its figure: `96.0% accurate` or `at R² 0.482`."""
    return f"at {score(figure)}" if figure.get("metric") in NAMES else f"{score(figure)} accurate"


def span(figure: Mapping[str, Any]) -> str:
    """The 95 % interval of a figure and its rows."""
    low, high = figure["low"], figure["high"]
    ends = f"{low:.3f} to {high:.3f}" if figure.get("metric") in NAMES else f"{low:.1%} to {high:.1%}"
    return f"{ends}, n = {figure['n']}"


def loss(figure: Mapping[str, Any], number: float, digits: int | None = 2) -> str:
    """A drop in the unit of a figure: `2.00 points` or `0.020 of R²`; without `digits` as short as it is."""
    name = NAMES.get(figure.get("metric", ""))
    if name:
        return f"{number:.3f} of {name}" if digits is not None else f"{number:g} of {name}"
    points = f"{100 * number:g}" if digits is None else f"{100 * number:.{digits}f}"
    return f"{points} point{'' if digits is None and points == '1' else 's'}"
