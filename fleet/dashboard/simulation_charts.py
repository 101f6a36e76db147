"""Charts of simulated rollouts: what the gates catch, how many devices are exposed, how long it takes, how many bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fleet.dashboard import words
from fleet.dashboard.charts import BLUE, GREEN, ORANGE, SKY, VERMILION, Chart, Table
from fleet.rollouts.forecast import Forecast, Power, Regression, hours_in_words
from fleet.rollouts.simulation import Simulated, histogram

# Names of axes stand above them, and would be cut at the edge of the picture.
_LEFT: dict[str, Any] = {"nameTextStyle": {"align": "left"}}
_RIGHT: dict[str, Any] = {"nameTextStyle": {"align": "right"}}


def of(found: Simulated, devices: int, outlook: Forecast | None) -> dict[str, Chart]:
    """Every chart of the page."""
    return {
        "power": power_curve(outlook.power if outlook else [], devices),
        "regressions": regressions(outlook.regressions if outlook else []),
        "exposed": exposed(found, devices),
        "hours": hours(found),
        "bytes": sizes(found),
    }


def regressions(lines: Sequence[Regression]) -> Chart:
    """Share of rollouts in which a slower or less accurate version is stopped."""
    columns = ["the version is", "stopped", "devices exposed", "hours (median)"]
    table = Table(columns, [[line.words, line.stopped, line.exposed, line.hours] for line in lines])
    if not lines:
        return Chart(None, table, "This strategy judges neither latency nor accuracy.")
    names = [line.words for line in lines]
    option = _frame(names, "how much worse it is")
    option["yAxis"] = {"type": "value", "name": "stopped", "unit": "percent", "min": 0, "max": 1} | _LEFT
    values = _details(names, [line.stopped for line in lines])
    option["series"] = [
        {
            "type": "bar",
            "name": "stopped",
            "data": values,
            "itemStyle": {"color": VERMILION},
            "barCategoryGap": "30%",
        }
    ]
    best = max(lines, key=lambda line: line.stopped)
    summary = "None of these is stopped by what devices measure."
    if best.stopped:
        summary = (
            f"One that never fails but is {best.words} is stopped in {words.share(best.stopped)} of rollouts, "
            f"after {best.exposed:.0f} devices."
        )
    return Chart(option, table, summary)


def power_curve(power: Sequence[Power], devices: int) -> Chart:
    """Share of rollouts that are stopped, and devices exposed, by the share of devices that fail."""
    columns = ["failing devices", "stopped", "held", "devices exposed", "hours (median)"]
    rows = [[words.share(p.failing), p.stopped, p.held, p.exposed, p.hours] for p in power]
    table = Table(columns, rows)
    if not power:
        return Chart(None, table, "Nothing was played.")
    names = [words.share(p.failing) for p in power]
    option = _frame(names, "share of devices that fail")
    option["yAxis"] = [
        {"type": "value", "name": "stopped", "unit": "percent", "min": 0, "max": 1} | _LEFT,
        {"type": "value", "name": "devices exposed", "unit": "count", "min": 0, "max": devices} | _RIGHT,
    ]
    option["series"] = [
        _line("stopped", _shares(names, [p.stopped for p in power]), VERMILION, "solid", "circle"),
        _line("held for a person", _shares(names, [p.held for p in power]), ORANGE, "dashed", "rect"),
        {
            **_line("devices exposed", _exposed(names, power, devices), BLUE, "dotted", "triangle"),
            "yAxisIndex": 1,
        },
    ]
    first, last = power[0], power[-1]
    summary = (
        f"With {names[0]} failing devices {words.share(first.stopped)} of rollouts are stopped, with {names[-1]} it is "
        f"{words.share(last.stopped)}, after {last.exposed:.0f} of {devices} devices."
    )
    return Chart(option, table, summary)


def exposed(found: Simulated, devices: int) -> Chart:
    """How many devices had run the version when it was over."""
    summary = f"Half of the rollouts exposed at most {np.median(found.exposed):.0f} of {words.plural(devices, 'device')}."
    return _bars(found.exposed, found.n, "devices exposed", BLUE, summary)


def hours(found: Simulated) -> Chart:
    """How long each rollout took, to its stop or its end."""
    low, middle, high = (hours_in_words(float(q) / 3600) for q in np.quantile(found.seconds, (0.1, 0.5, 0.9)))
    summary = f"Half of the rollouts took at most {middle}; one in ten less than {low}, one in ten more than {high}."
    return _bars(found.seconds / 3600, found.n, "hours", GREEN, summary)


def sizes(found: Simulated) -> Chart:
    """Megabytes over the air."""
    summary = f"Half of the rollouts sent at most {np.median(found.bytes) / 1e6:.2f} MB."
    return _bars(found.bytes / 1e6, found.n, "MB over the air", SKY, summary)


def _bars(values: Any, n: int, name: str, colour: str, summary: str) -> Chart:
    bins = histogram(values)
    table = Table(
        [f"{name}, from", "to", "rollouts"], [[round(a, 3), round(b, 3), count] for a, b, count in bins]
    )
    names = [f"{(a + b) / 2:.3g}" for a, b, _ in bins]
    option = _frame(names, name)
    option["yAxis"] = {"type": "value", "name": f"rollouts of {n}", "unit": "count", "minInterval": 1} | _LEFT
    option["series"] = [
        {
            "type": "bar",
            "name": "rollouts",
            "data": [
                {"value": [at, count], "detail": f"{count} of {n} from {a:.3g} to {b:.3g} {name}"}
                for at, (a, b, count) in zip(names, bins, strict=True)
            ],
            "itemStyle": {"color": colour},
            "barCategoryGap": "8%",
        }
    ]
    return Chart(option, table, summary)


def _frame(names: list[str], axis: str) -> dict[str, Any]:
    return {
        "grid": {"left": 8, "right": 20, "top": 36, "bottom": 56, "containLabel": True},
        "legend": {"bottom": 0, "type": "scroll"},
        "tooltip": {"trigger": "item"},
        "xAxis": {"type": "category", "data": names, "name": axis, "nameLocation": "middle", "nameGap": 28},
    }


def _shares(names: Sequence[str], values: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"value": [name, value], "detail": f"{words.share(value)} of rollouts, where {name} of devices fail"}
        for name, value in zip(names, values, strict=True)
    ]


def _details(names: Sequence[str], values: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"value": [name, value], "detail": f"{words.share(value)} of rollouts, where it is {name}"}
        for name, value in zip(names, values, strict=True)
    ]


def _exposed(names: Sequence[str], power: Sequence[Power], devices: int) -> list[dict[str, Any]]:
    return [
        {"value": [name, p.exposed], "detail": f"{p.exposed:.0f} of {devices}, where {name} of devices fail"}
        for name, p in zip(names, power, strict=True)
    ]


def _line(name: str, data: list[dict[str, Any]], colour: str, dash: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "line",
        "name": name,
        "data": data,
        "symbol": symbol,
        "symbolSize": 7,
        "lineStyle": {"type": dash, "width": 2, "color": colour},
        "itemStyle": {"color": colour},
    }
