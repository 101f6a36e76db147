"""Charts as data: each function returns the picture's options, the table behind it and one sentence for a screen reader.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and each is doubled by a symbol or a dash. A bucket
without data is a gap in the line. `unit` on an axis is read by charts.js, which formats the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fleet.dashboard import words

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"

MAX_MARKERS = 12


@dataclass(frozen=True)
class Table:
    """The values of a chart, ready to be shown or saved."""

    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """One chart; `option` is None when there is nothing to draw."""

    option: dict[str, Any] | None
    table: Table
    summary: str


@dataclass(frozen=True)
class LatencyPoint:
    """Latency of one bucket of time; the percentiles are None where nothing ran."""

    at: datetime
    n: int
    p50_us: float | None
    p95_us: float | None
    p99_us: float | None


@dataclass(frozen=True)
class AccuracyPoint:
    """Labelled accuracy of one bucket of time with its 95 % interval."""

    at: datetime
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Marker:
    """A moment worth a vertical line, such as the start of a rollout."""

    at: datetime
    text: str


@dataclass(frozen=True)
class CandidatePoint:
    """One measured candidate of a job."""

    key: str
    recipe: str
    bytes: int
    accuracy: dict[str, Any]
    kind: str  # winner, front, fits or misses
    verdict: str


def latency(points: Sequence[LatencyPoint], markers: Sequence[Marker] = ()) -> Chart:
    """p50, p95 and p99 over time."""
    table = Table(
        ["start (UTC)", "n", "p50 (µs)", "p95 (µs)", "p99 (µs)"],
        [[_utc(p.at), p.n, _whole(p.p50_us), _whole(p.p95_us), _whole(p.p99_us)] for p in points if p.n],
    )
    seen = [p for p in points if p.n and p.p50_us is not None]
    if not seen:
        return Chart(None, table, "No inferences were reported in this time.")
    option = _over_time("latency", "us", markers)
    option["yAxis"]["min"] = 0
    # From the widest to the narrowest, so that the fill of one shines through the next.
    option["series"] = [
        _line("p99", points, lambda p: p.p99_us, SKY, dash="dotted", symbol="triangle", fill=0.10),
        _line("p95", points, lambda p: p.p95_us, ORANGE, dash="dashed", symbol="rect", fill=0.10),
        _line("p50", points, lambda p: p.p50_us, BLUE, dash="solid", symbol="circle", fill=0.16),
    ]
    option["series"][-1]["markLine"] = _marker_lines(markers)
    return Chart(option, table, _latency_sentence(seen, len(points) - len(seen)))


def _latency_sentence(seen: Sequence[LatencyPoint], gaps: int) -> str:
    last, total = seen[-1], sum(p.n for p in seen)
    text = (
        f"Most recently half of the inferences took at most {words.micros(last.p50_us)}, "
        f"95 % {words.micros(last.p95_us)} and 99 % {words.micros(last.p99_us)} "
        f"(n = {words.count(last.n)}; {words.count(total)} in all)."
    )
    return text + _gap_words(gaps)


def accuracy(
    points: Sequence[AccuracyPoint], floor: float | None = None, markers: Sequence[Marker] = ()
) -> Chart:
    """Labelled accuracy over time, with its interval and the floor that a trial must not fall below."""
    table = Table(
        ["start (UTC)", "labelled", "accuracy", "low", "high"],
        [[_utc(p.at), p.n, _ratio(p.value), _ratio(p.low), _ratio(p.high)] for p in points if p.n],
    )
    seen = [p for p in points if p.n and p.value is not None]
    if not seen:
        return Chart(
            None, table, "No labels have come back in this time, so accuracy in the field is not known."
        )
    option = _over_time("accuracy", "percent", markers)
    option["yAxis"] |= {
        "max": 1,
        "min": _lower_end([p.low if p.low is not None else 1.0 for p in seen], floor),
    }
    option["series"] = [*_interval_band(points), _accuracy_line(points, floor, markers)]
    option["legend"] = {"data": ["accuracy", "95 % interval"], "bottom": 0}
    return Chart(option, table, _accuracy_sentence(seen, floor, len(points) - len(seen)))


def _accuracy_line(
    points: Sequence[AccuracyPoint], floor: float | None, markers: Sequence[Marker]
) -> dict[str, Any]:
    line = _line("accuracy", points, lambda p: p.value, GREEN, dash="solid", symbol="diamond", fill=0)
    for item, point in zip(line["data"], points, strict=True):
        item["detail"] = words.interval(
            {"value": point.value, "low": point.low, "high": point.high, "n": point.n}
        )
    lines = _marker_lines(markers)
    if floor is not None:
        name = f"floor {words.share(floor)}"
        lines["data"].append(
            {
                "yAxis": floor,
                "name": name,
                "lineStyle": {"color": VERMILION, "type": "dashed"},
                "label": {"position": "insideEndBottom"},
            }
        )
    line["markLine"] = lines
    return line


def _interval_band(points: Sequence[AccuracyPoint]) -> list[dict[str, Any]]:
    # A stacked pair: an invisible line at the lower end carries the filled height of the interval.
    common = {
        "type": "line",
        "stack": "interval",
        "symbol": "none",
        "silent": True,
        "lineStyle": {"opacity": 0},
    }
    low = [{"value": [_iso(p.at), p.low if p.n else None]} for p in points]
    high = [{"value": [_iso(p.at), _height(p)]} for p in points]
    return [
        {**common, "name": "lower end", "data": low, "itemStyle": {"color": GREEN}},
        {
            **common,
            "name": "95 % interval",
            "data": high,
            "itemStyle": {"color": GREEN},
            "areaStyle": {"color": GREEN, "opacity": 0.18},
        },
    ]


def _height(point: AccuracyPoint) -> float | None:
    return point.high - point.low if point.n and point.high is not None and point.low is not None else None


def _accuracy_sentence(seen: Sequence[AccuracyPoint], floor: float | None, gaps: int) -> str:
    last = seen[-1]
    text = f"Most recently {words.interval({'value': last.value, 'low': last.low, 'high': last.high, 'n': last.n})} of labelled predictions were right."
    if floor is not None and last.value is not None and last.high is not None:
        if last.high < floor:
            text += f" The whole interval lies below the floor of {words.share(floor)}."
        elif last.value >= floor:
            text += f" That is above the floor of {words.share(floor)}."
        else:
            text += f" The floor of {words.share(floor)} is within the interval."
    return text + _gap_words(gaps)


KINDS = {
    "winner": ("published", "pin", 18, GREEN),
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
        "legend": {"bottom": 0},
        "tooltip": {"trigger": "item"},
        "xAxis": {"type": "value", "name": "bytes", "unit": "bytes", "nameLocation": "middle", "nameGap": 28, "min": 0, "max": max(largest, shown_budget or 0) * 1.08},
        "yAxis": {"type": "value", "name": "accuracy", "unit": "percent", "max": 1, "min": _lower_end([c.accuracy["value"] for c in drawn], min_accuracy)},
        "series": _pareto_series(drawn, shown_budget, min_accuracy),
    }  # fmt: skip
    return Chart(option, table, _pareto_sentence(drawn, flash_bytes, shown_budget, min_accuracy))


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
                "name": f"at least {words.share(min_accuracy)}",
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
        text += f" {above} of {len(drawn)} reach {words.share(min_accuracy)}."
    return text


def _over_time(name: str, unit: str, markers: Sequence[Marker]) -> dict[str, Any]:
    return {
        "grid": {"left": 8, "right": 20, "top": 48 if markers else 28, "bottom": 40, "containLabel": True},
        "legend": {"bottom": 0},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "time", "name": "UTC", "utc": True, "nameLocation": "end", "nameGap": 4},
        "yAxis": {"type": "value", "name": name, "unit": unit},
        "useUTC": True,
    }


def _line(
    name: str, points: Sequence[Any], value: Any, colour: str, *, dash: str, symbol: str, fill: float
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "type": "line",
        "name": name,
        "data": [{"value": [_iso(p.at), value(p) if p.n else None], "n": p.n} for p in points],
        "connectNulls": False,
        "symbol": symbol,
        "symbolSize": 6,
        "showSymbol": len(points) <= 60,
        "lineStyle": {"type": dash, "width": 2, "color": colour},
        "itemStyle": {"color": colour},
    }
    if fill:
        line["areaStyle"] = {"color": colour, "opacity": fill}
    return line


def _marker_lines(markers: Sequence[Marker]) -> dict[str, Any]:
    return {
        "silent": True,
        "symbol": "none",
        "label": {"formatter": "{b}", "position": "end"},
        "lineStyle": {"color": PURPLE, "type": "solid", "width": 1.5},
        "data": [{"xAxis": _iso(m.at), "name": m.text} for m in list(markers)[-MAX_MARKERS:]],
    }


def _lower_end(values: Sequence[float], line: float | None) -> float:
    """A round lower end of an accuracy axis, below everything that is drawn."""
    lowest = min([*values, line if line is not None else 1.0])
    return max(0.0, round((lowest - 0.03) * 20 // 1 / 20, 2))


def _gap_words(gaps: int) -> str:
    return f" {words.plural(gaps, 'bucket')} without data are gaps." if gaps > 1 else ""


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _ratio(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")
