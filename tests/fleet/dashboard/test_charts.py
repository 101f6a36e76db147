"""Charts are pure: picture, table and sentence from plain points."""

from datetime import UTC, datetime, timedelta

from fleet.dashboard import words
from fleet.dashboard.charts import AccuracyPoint, LatencyPoint, Marker, accuracy, latency
from fleet.dashboard.field import with_gaps
from fleet.dashboard.pareto_chart import CandidatePoint, bytes_axis, pareto

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def points(*minutes: int) -> list[LatencyPoint]:
    """One point a minute that is named."""
    return [LatencyPoint(START + minute * MINUTE, 10, 1000.0, 2000.0, 3000.0) for minute in minutes]


def test_a_gap_in_the_data_is_a_gap_in_the_line_and_no_row_of_the_table() -> None:
    chart = latency(with_gaps(points(0, 1, 5), MINUTE))
    assert chart.option is not None
    p50 = next(series for series in chart.option["series"] if series["name"] == "p50")
    assert [item["value"][1] for item in p50["data"]] == [1000.0, 1000.0, None, 1000.0]
    assert p50["connectNulls"] is False
    assert len(chart.table.rows) == 3


def test_lines_differ_by_dash_and_symbol_and_not_only_by_colour() -> None:
    chart = latency(points(0, 1), [Marker(START, "v2 out")])
    assert chart.option is not None
    lines = chart.option["series"]
    assert len({line["lineStyle"]["type"] for line in lines}) == len({line["symbol"] for line in lines}) == 3
    assert [mark["name"] for line in lines if "markLine" in line for mark in line["markLine"]["data"]] == [
        "v2 out"
    ]
    assert chart.option["yAxis"]["unit"] == "us"


def test_nothing_measured_draws_nothing_and_says_so() -> None:
    for chart in (latency([]), accuracy([]), pareto([], 1, None)):
        assert chart.option is None
        assert chart.table.rows == []
        assert chart.summary.endswith(".")


def test_accuracy_always_comes_with_interval_and_n_and_is_compared_with_the_floor() -> None:
    bad = accuracy([AccuracyPoint(START, 50, 0.5, 0.37, 0.63)], floor=0.9)
    assert "50.0 % (37.0–63.0 %, n = 50)" in bad.summary
    assert "The whole interval lies below the floor of 90.0 %." in bad.summary
    assert bad.option is not None
    assert bad.option["yAxis"]["min"] < 0.37
    assert bad.option["series"][-1]["data"][0]["detail"] == "50.0 % (37.0–63.0 %, n = 50)"
    unsure = accuracy([AccuracyPoint(START, 5, 0.8, 0.4, 0.96)], floor=0.9)
    assert "within the interval" in unsure.summary


def candidate(key: str, size: int, value: float, kind: str) -> CandidatePoint:
    """A measured candidate."""
    return CandidatePoint(
        key, key, size, {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 200}, kind, ""
    )


def test_the_pareto_plot_draws_budget_lines_only_where_they_can_be_seen() -> None:
    found = [
        candidate("a", 90_000, 0.95, "winner"),
        candidate("b", 300_000, 0.97, "front"),
        candidate("c", 95_000, 0.8, "misses"),
    ]
    near = pareto(found, 400_000, 0.9)
    assert near.option is not None
    assert [line["name"] for line in near.option["series"][0]["markLine"]["data"]] == [
        "flash budget 391 KiB",
        "at least 90.0 %",
    ]
    assert near.option["xAxis"]["max"] >= 400_000
    assert "2 of 3 reach 90.0 %." in near.summary
    far = pareto(found, 1 << 31, None)
    assert "far to the right" in far.summary
    assert [series["name"] for series in near.option["series"][1:]] == [
        "published",
        "on the front",
        "misses a goal",
    ]


def test_ticks_of_bytes_are_round_in_binary_units() -> None:
    for largest in (1, 900, 90_000, 3_000_000_000):
        axis = bytes_axis(largest)
        assert axis["max"] >= largest
        assert axis["interval"] & (axis["interval"] - 1) == 0


def test_words() -> None:
    assert [words.size(n) for n in (None, 0, 1023, 1024, 150_000, 5 << 30)] == [
        "–",
        "0 B",
        "1023 B",
        "1.0 KiB",
        "146 KiB",
        "5.0 GiB",
    ]
    assert [words.micros(n) for n in (870, 12_340, 150_000, 1_200_000)] == [
        "870 µs",
        "12.3 ms",
        "150 ms",
        "1.20 s",
    ]
    assert [words.count(n) for n in (999, 99_999, 123_456, 1_214_528)] == ["999", "99,999", "123 k", "1.21 M"]
    assert words.distance(START, START + timedelta(hours=3)) == "3 hours ago"
    figure = {"value": 0.48, "low": 0.41, "high": 0.55, "n": 90}
    assert words.interval(figure) == "48.0 % (41.0–55.0 %, n = 90)"
    assert words.interval({**figure, "metric": "r2"}) == "R² 0.480 (0.410–0.550, n = 90)"
    assert words.points({**figure, "metric": "auc"}) == "0.480 of AUC (0.410 to 0.550)"
    assert words.distance(START + timedelta(days=2), START) == "in 2 days"
    assert words.sentence("meter-04 is silent") == "meter-04 is silent."
    assert words.sentence("nobody kept it") == "Nobody kept it."
