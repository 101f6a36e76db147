"""Reports in, figures out: once each, at the right time, merged without loss."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.core.histogram import Histogram
from device_agent.core.protocol import ProtocolError
from fleet.accounts.roles import Role
from fleet.inventory.models import Device
from fleet.registry.models import Artifact
from fleet.telemetry import alerts, ingest, rollups, summaries
from fleet.telemetry.models import Alert, Report, Rollup
from tests.factories import ArtifactFactory, api_client
from tests.fleet.devices_by_hand import HandDevice, hand_device

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def artifact() -> Artifact:
    """What the devices run; its accuracy on test rows lies above 0.91."""
    made: Artifact = ArtifactFactory()
    return made


@pytest.fixture
def device(artifact: Artifact) -> HandDevice:
    """A device that said hello a second after its boot."""
    made = hand_device("pi-1", NOW)
    made.installed = artifact.sha256
    made.hello(NOW)
    return made


def message(
    sequence: int, artifact: Artifact, latencies: tuple[int, ...] = (1000,), **changes: Any
) -> dict[str, Any]:
    """A report of some inferences."""
    histogram = Histogram()
    for value in latencies:
        histogram.add(value)
    return {
        "epoch": 77,
        "boot": 1,
        "sequence": sequence,
        "app": "main",
        "artifact": artifact.sha256,
        "slot": "a",
        "phase": "live",
        "start_ms": 1000,
        "end_ms": 31_000,
        "n": len(latencies),
        "errors": 0,
        "latency": histogram.to_wire(),
        "labelled": 2,
        "correct": 1,
        "classes": {"cat": len(latencies)},
        "confidence": [0] * 9 + [len(latencies)],
        "heap_free_min": 5000 + sequence,
    } | changes


def test_a_report_counts_once_however_often_it_comes(device: HandDevice, artifact: Artifact) -> None:
    """In one batch, in two, and after the roll-up."""
    for _ in range(2):
        device.say("report", message(1, artifact), NOW)
    rollups.roll_up()
    device.say("report", message(1, artifact), NOW)
    rollups.roll_up()
    assert Report.objects.count() == 1
    assert summaries.summarise(summaries.Scope()).n == 1
    assert Report.objects.get().artifact == artifact


def test_reports_of_a_replaced_epoch_do_not_count(device: HandDevice, artifact: Artifact) -> None:
    """A re-flashed device begins again at sequence 1."""
    device.say("report", message(1, artifact), NOW)
    device.say("report", message(1, artifact, epoch=88), NOW)
    device.say("report", message(2, artifact, epoch=77), NOW)
    assert list(Report.objects.order_by("epoch").values_list("epoch", "sequence")) == [(77, 1), (88, 1)]


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, NOW + timedelta(seconds=30)),  # booted one second before NOW
        ({"utc": NOW.timestamp() + 7}, NOW + timedelta(seconds=7)),
        ({"utc": 5}, NOW + timedelta(seconds=30)),
        ({"end_ms": 10**12}, NOW + timedelta(minutes=5)),  # never later than it came
        ({"boot": 0}, NOW - timedelta(seconds=1)),  # an earlier boot was over when this one began
        ({"boot": 9}, NOW + timedelta(minutes=5)),  # a later boot that said no hello yet
    ],
)
def test_device_time_becomes_utc(
    device: HandDevice, artifact: Artifact, changes: dict[str, Any], end: datetime
) -> None:
    """From its clock, from its boot, or from the arrival."""
    device.say("report", message(1, artifact, **changes), NOW + timedelta(minutes=5))
    assert Report.objects.get().end_at == end


def test_percentiles_come_from_merged_histograms(device: HandDevice, artifact: Artifact) -> None:
    """99 fast and one slow answer, spread over many reports, some rolled up and some not."""
    for sequence in range(10):
        slow = (50_000,) if sequence == 9 else (1000,)
        device.say("report", message(sequence, artifact, (1000,) * 9 + slow), NOW)
        if sequence == 5:
            rollups.roll_up()
    found = summaries.summarise(summaries.Scope(artifact=artifact))
    assert found.latency.n == found.n == 100
    assert found.latency.p50_us == found.latency.p99_us == pytest.approx(1000, rel=0.032)
    assert (found.labelled, found.correct, found.classes) == (20, 10, {"cat": 100})
    assert found.heap_free_min == 5000
    assert found.confidence[-1] == 100
    assert found.accuracy is not None
    assert found.accuracy.low < 0.5 < found.accuracy.high


def test_late_reports_find_their_minute_and_hour(device: HandDevice, artifact: Artifact) -> None:
    """A spool that empties days later changes the past, once."""
    for sequence, ago in enumerate((0, 0, 60, 3600, 90_000)):
        utc = NOW.timestamp() - ago
        device.say("report", message(sequence, artifact, utc=utc), NOW + timedelta(minutes=1))
        rollups.roll_up()
    assert rollups.roll_up() == 0
    for resolution, buckets in (("minute", 4), ("hour", 3)):
        rows = Rollup.objects.filter(resolution=resolution)
        assert (rows.count(), sum(row.n for row in rows)) == (buckets, 5)
    points = summaries.series(summaries.Scope(), "minute")
    assert [point.at for point in points] == sorted(point.at for point in points)
    assert points[-1].summary.n == 2


@given(st.lists(st.lists(st.integers(0, 10_000_000), max_size=20), max_size=8))
def test_merging_in_any_grouping_is_the_same(groups: list[list[int]]) -> None:
    """Sum of histograms is the histogram of the sum."""
    from fleet.telemetry.merging import latency_of

    wires, everything = [], Histogram()
    for group in groups:
        one = Histogram()
        for value in group:
            one.add(value)
            everything.add(value)
        wires.append(one.to_wire())
    half = len(wires) // 2
    twice = latency_of([latency_of(wires[:half]).to_wire(), latency_of(wires[half:]).to_wire()])
    assert twice.to_wire() == latency_of(wires).to_wire() == everything.to_wire()


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(0, 0, 0, 1), (0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (95, 100, 0.8882, 0.9785)],
)
def test_wilson(correct: int, n: int, low: float, high: float) -> None:
    """Against published values."""
    assert summaries.wilson(correct, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        {"latency": [[5, 0]]},
        {"latency": "x"},
        {"classes": {"a": -1}},
        {"classes": {str(n): 1 for n in range(99)}},
        {"confidence": [0.5]},
        {"heap_free_min": "much"},
        {"dropped": -1},
        {"scores": []},
        {"scores": "x"},
    ],
)
def test_reports_that_rows_could_not_hold_are_refused(bad: dict[str, Any], artifact: Artifact) -> None:
    """A hostile device cannot write nonsense."""
    if bad == {"scores": []}:
        ingest.check(message(1, artifact, **bad))  # nothing, in another spelling
        return
    with pytest.raises(ProtocolError):
        ingest.check(message(1, artifact, **bad))


def test_alerts_open_once_and_close_by_themselves(device: HandDevice, artifact: Artifact) -> None:
    """Overdue, and back; accuracy below the floor beyond doubt."""
    later = NOW + timedelta(minutes=10)
    for _ in range(2):
        alerts.review(later)
    alert = Alert.objects.get()
    assert (alert.kind, alert.closed_at) == ("overdue", None)
    assert "pi-1 was last heard 10 min ago" in alert.sentence
    device.say("report", message(1, artifact, labelled=100, correct=50), later)
    alerts.review(later)
    assert {(a.kind, a.closed_at is None) for a in Alert.objects.all()} == {
        ("overdue", False),
        ("accuracy", True),
    }
    device.say("report", message(2, artifact, labelled=9900, correct=9890), later)
    alerts.review(later)
    assert not Alert.objects.filter(closed_at=None).exists()


def test_over_rest(device: HandDevice, artifact: Artifact) -> None:
    """Series, summary, reports, alerts, and a scope that does not exist."""
    device.say("report", message(1, artifact), NOW)
    client = api_client(Role.VIEWER)
    series = client.get(f"/api/v1/telemetry/latency?device=pi-1&artifact={artifact.pk}").json()
    assert [point["n"] for point in series] == [1]
    inside = client.get("/api/v1/telemetry/summary?from=2026-11-21T12:00:00Z&to=2026-11-21T13:00:00Z").json()
    before = client.get("/api/v1/telemetry/summary?to=2026-11-21T11:00:00Z").json()
    assert (inside["n"], before["n"]) == (1, 0)
    assert inside["latency"]["p50_us"] == pytest.approx(1000, rel=0.032)
    assert client.get("/api/v1/devices/pi-1/reports").json()["items"][0]["sequence"] == 1
    assert client.get("/api/v1/alerts").json()["items"] == []
    assert client.get("/api/v1/telemetry/summary?device=nobody").status_code == 404
    assert Device.objects.count() == 1
