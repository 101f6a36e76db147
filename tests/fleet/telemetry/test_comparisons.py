"""Before and after one moment: hours far from it, minutes around it, each report once."""

from datetime import UTC, datetime, timedelta

import pytest

from fleet.inventory.models import Device
from fleet.telemetry import comparisons, rollups
from fleet.telemetry.models import Report
from tests.factories import DeviceFactory

pytestmark = pytest.mark.django_db
MOMENT = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


def report(device: Device, sha256: str, at: datetime, n: int) -> None:
    """One window."""
    times = {"start_at": at, "end_at": at}
    names = {"app": "main", "artifact_sha256": sha256, "slot": "a", "phase": "live"}
    Report.objects.create(
        device=device,
        epoch=1,
        boot=1,
        sequence=int(at.timestamp()),
        n=n,
        latency=[[100, n]],
        **names,
        **times,
    )


def test_every_report_counts_once_on_its_side_however_far_away() -> None:
    device, old, new = DeviceFactory(), "a" * 64, "b" * 64
    for hours, n in ((-100, 1), (-48, 10), (-0.2, 100)):
        report(device, old, MOMENT + timedelta(hours=hours), n)
    for hours, n in ((0.2, 1000), (5, 10_000)):
        report(device, new, MOMENT + timedelta(hours=hours), n)
    rollups.roll_up()
    report(device, new, MOMENT + timedelta(hours=6), 100_000)
    found = comparisons.compare("main", [comparisons.Question(device.pk, old, new, MOMENT)])[device.pk]
    assert found.before is not None
    assert found.after is not None
    assert (found.before.counts.n, found.before.latency.count) == (110, 110), "of the last three days"
    assert (found.after.counts.n, found.after.latency.count) == (111_000, 111_000)
