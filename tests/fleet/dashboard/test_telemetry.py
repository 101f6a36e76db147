"""Telemetry and overview with reports in."""

from datetime import timedelta

from django.utils import timezone

from device_agent.core.histogram import Histogram
from fleet.dashboard.overview import needs
from fleet.inventory.models import Device
from fleet.registry.models import Artifact
from fleet.rollouts.models import Rollout
from fleet.telemetry.models import Alert, Report
from tests.factories import ArtifactFactory, DeviceFactory, GroupFactory, JobFactory
from tests.fleet.dashboard.conftest import Login
from tests.fleet.dashboard.rows import rollout


def report(
    device: Device, artifact: Artifact, minutes_ago: int, labelled: int = 20, correct: int = 19
) -> None:
    """One window of 30 inferences of about a millisecond."""
    seen = Histogram()
    for _ in range(30):
        seen.add(1000)
    end = timezone.now() - timedelta(minutes=minutes_ago)
    Report.objects.create(
        device=device, epoch=1, boot=1, sequence=1000 - minutes_ago, app="main", artifact=artifact, artifact_sha256=artifact.sha256, phase="live",
        start_at=end - timedelta(minutes=1), end_at=end, n=30, latency=seen.to_wire(), labelled=labelled, correct=correct,
    )  # fmt: skip


def test_latency_and_accuracy_come_with_n_interval_table_and_csv(login: Login) -> None:
    device, artifact = DeviceFactory(name="pi"), ArtifactFactory()
    for minutes in (1, 2, 10):
        report(device, artifact, minutes)
    client = login()
    page = client.get("/telemetry/").content.decode()
    for text in ("95.0 %", "n = 60", 'id="latency-option"', "Show as table", "from 1 device"):
        assert text in page
    rows = client.get("/telemetry/?csv=accuracy").content.decode().splitlines()
    assert rows[0] == "start (UTC),labelled,accuracy,low,high"
    assert len(rows) == 4
    assert client.get("/telemetry/?device=pi&span=nonsense&artifact=nonsense").status_code == 200
    assert (
        "No inferences were reported"
        in client.get(f"/telemetry/?artifact={ArtifactFactory().pk}").content.decode()
    )


def test_a_device_page_draws_its_own_reports(login: Login) -> None:
    device, artifact = DeviceFactory(name="pi"), ArtifactFactory()
    report(device, artifact, 1)
    assert 'id="latency-option"' in login().get("/devices/pi/").content.decode()
    assert "'" not in login().get("/devices/pi/?csv=latency").content.decode().splitlines()[1]


def test_what_waits_for_a_person_stands_on_the_overview(login: Login) -> None:
    artifact, group, device = ArtifactFactory(), GroupFactory(), DeviceFactory(name="pi")
    rollout(artifact, [device], group, state=Rollout.State.HELD, reason="nobody kept it")
    JobFactory(state="failed", finished_at=timezone.now(), reason="no candidate fits")
    Alert.objects.create(kind=Alert.Kind.OVERDUE, device=device, sentence="pi is silent")
    assert {need.state for need in needs(timezone.now())} == {"held", "failed", "overdue"}
    page = login().get("/").content.decode()
    for text in ("Nobody kept it.", "No candidate fits.", "pi: never seen"):
        assert text in page
