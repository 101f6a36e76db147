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
    option["yAxis"] = accuracy_axis([p.low if p.low is not None else 1.0 for p in seen], floor)
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


def _over_time(name: str, unit: str, markers: Sequence[Marker]) -> dict[str, Any]:
    return {
        "grid": {"left": 8, "right": 20, "top": 44 if markers else 28, "bottom": 56, "containLabel": True},
        "legend": {"bottom": 0, "type": "scroll"},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "time", "name": "UTC", "utc": True, "nameLocation": "middle", "nameGap": 24},
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


def accuracy_axis(values: Sequence[float], line: float | None) -> dict[str, Any]:
    """An accuracy axis with a round lower end below everything that is drawn."""
    lowest = min([*values, line if line is not None else 1.0])
    step = 0.01 if lowest > 0.95 else 0.05 if lowest > 0.7 else 0.2
    # Rounded first: 0.85 / 0.05 is a hair below 17.
    low = max(0.0, (round((lowest - step / 3) / step, 6) // 1) * step)
    return {
        "type": "value",
        "name": "accuracy",
        "unit": "percent",
        "min": round(low, 4),
        "max": 1,
        "interval": step,
    }


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
