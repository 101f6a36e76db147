"""The picture of a job: accuracy against bytes of every candidate of one target, with the lines of its budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compression_jobs.pipeline.wording import NAMES
from fleet.dashboard import words
from fleet.dashboard.charts import BLUE, GREEN, ORANGE, VERMILION, Chart, Table, accuracy_axis


@dataclass(frozen=True)
class CandidatePoint:
    """One measured candidate of a job."""

    key: str
    recipe: str
    bytes: int
    accuracy: dict[str, Any]
    kind: str  # winner, front, fits or misses
    verdict: str


KINDS = {
    "winner": ("published", "roundRect", 14, GREEN),
    "front": ("on the front", "circle", 11, BLUE),
    "fits": ("fits, but another is better", "diamond", 10, ORANGE),
    "misses": ("misses a goal", "triangle", 10, VERMILION),
}


def pareto(
    candidates: Sequence[CandidatePoint], flash_bytes: int | None, min_accuracy: float | None
) -> Chart:
    """Accuracy against bytes of every candidate of one target, with the lines of its budget."""
    table = Table(
        ["candidate", "recipe", "bytes", "accuracy", "low", "high", "n", "verdict"],
        [
            [c.key, c.recipe, c.bytes, *(c.accuracy.get(k) for k in ("value", "low", "high", "n")), c.verdict]
            for c in candidates
        ],
    )
    drawn = [c for c in candidates if c.accuracy.get("value") is not None]
    if not drawn:
        return Chart(None, table, "No candidate has been measured yet.")
    largest = max(c.bytes for c in drawn)
    shown_budget = flash_bytes if flash_bytes and flash_bytes <= 4 * largest else None
    option = {
        "grid": {"left": 8, "right": 24, "top": 36, "bottom": 56, "containLabel": True},
        "legend": {"bottom": 0, "type": "scroll"},
        "tooltip": {"trigger": "item"},
        "xAxis": bytes_axis(max(largest, shown_budget or 0)),
        "yAxis": _score_axis(drawn, min_accuracy),
        "series": _pareto_series(drawn, shown_budget, min_accuracy),
    }
    return Chart(option, table, _pareto_sentence(drawn, flash_bytes, shown_budget, min_accuracy))


def _score_axis(drawn: Sequence[CandidatePoint], least: float | None) -> dict[str, Any]:
    axis = accuracy_axis([c.accuracy["value"] for c in drawn], least)
    name = NAMES.get(drawn[0].accuracy.get("metric", ""))
    return {**axis, "name": name, "unit": "count"} if name else axis


def _least(drawn: Sequence[CandidatePoint], value: float) -> str:
    """What was asked for, in the unit of the candidates."""
    return words.interval({"value": value, "metric": drawn[0].accuracy.get("metric", "")})


def _pareto_series(
    drawn: Sequence[CandidatePoint], flash_bytes: int | None, min_accuracy: float | None
) -> list[dict[str, Any]]:
    series: list[dict[str, Any]] = [_front_line(drawn, flash_bytes, min_accuracy)]
    for kind, (name, symbol, size, colour) in KINDS.items():
        data = [
            {
                "value": [c.bytes, c.accuracy["value"]],
                "detail": f"{c.recipe}: {words.size(c.bytes)}, {words.interval(c.accuracy)}. {c.verdict}",
            }
            for c in drawn
            if c.kind == kind
        ]
        if data:
            style = {"color": colour, "borderColor": colour, "borderWidth": 1}
            series.append(
                {
                    "type": "scatter",
                    "name": name,
                    "symbol": symbol,
                    "symbolSize": size,
                    "itemStyle": style,
                    "data": data,
                }
            )
    return series


def _front_line(
    drawn: Sequence[CandidatePoint], flash_bytes: int | None, min_accuracy: float | None
) -> dict[str, Any]:
    front = sorted((c.bytes, c.accuracy["value"]) for c in drawn if c.kind in ("winner", "front"))
    budgets: list[dict[str, Any]] = []
    if flash_bytes:
        budgets.append({"xAxis": flash_bytes, "name": f"flash budget {words.size(flash_bytes)}"})
    if min_accuracy is not None:
        budgets.append(
            {
                "yAxis": min_accuracy,
                "name": f"at least {_least(drawn, min_accuracy)}",
                "label": {"position": "insideEndTop"},
            }
        )
    return {
        "type": "line",
        "name": "front",
        "data": [{"value": list(pair)} for pair in front],
        "symbol": "none",
        "step": "end",
        "lineStyle": {"color": BLUE, "type": "dashed", "width": 1.5},
        "itemStyle": {"color": BLUE},
        "markLine": {
            "silent": True,
            "symbol": "none",
            "data": budgets,
            "lineStyle": {"color": VERMILION, "type": "dashed"},
            "label": {"formatter": "{b}"},
        },
    }


def _pareto_sentence(
    drawn: Sequence[CandidatePoint], flash_bytes: int | None, shown: int | None, min_accuracy: float | None
) -> str:
    best = next((c for c in drawn if c.kind == "winner"), None)
    text = f"{words.plural(len(drawn), 'candidate')} measured."
    if best:
        text += f" The published one ({best.recipe}) has {words.size(best.bytes)} at {words.interval(best.accuracy)}."
    if flash_bytes and not shown:
        text += f" The flash budget of {words.size(flash_bytes)} lies far to the right of the picture."
    if min_accuracy is not None:
        above = sum(c.accuracy["value"] >= min_accuracy for c in drawn)
        text += f" {above} of {len(drawn)} reach {_least(drawn, min_accuracy)}."
    return text


def bytes_axis(largest: int) -> dict[str, Any]:
    """An axis of bytes whose ticks are round in binary units."""
    step = 2 ** max(0, math.ceil(math.log2(max(largest, 1) * 1.05 / 6)))
    return {
        "type": "value",
        "name": "bytes",
        "unit": "bytes",
        "nameLocation": "middle",
        "nameGap": 28,
        "min": 0,
        "max": math.ceil(largest * 1.05 / step) * step,
        "interval": step,
    }
