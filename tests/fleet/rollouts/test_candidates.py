"""What planning reads of artifacts: the latency that the field measured, before any estimate."""

from datetime import UTC, datetime

import pytest

from device_agent.core.histogram import Histogram
from fleet.registry.models import Artifact, LatencyFactor
from fleet.rollouts.candidates import offers_of, room_of
from fleet.telemetry.models import Rollup
from tests.factories import ArtifactFactory, DeviceFactory, TargetFactory

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def latency_of(artifact: Artifact) -> int | None:
    """As choosing sees it."""
    (offer,) = offers_of(artifact.version)[artifact.target.slug]
    return offer.latency_us


def ran(artifact: Artifact, microseconds: int, times: int) -> None:
    """So many inferences on a device, in one minute."""
    histogram = Histogram()
    for _ in range(times):
        histogram.add(microseconds)
    Rollup.objects.create(
        device=DeviceFactory(target=artifact.target),
        app="main",
        artifact=artifact,
        artifact_sha256=artifact.sha256,
        phase="live",
        resolution="minute",
        start_at=NOON,
        n=times,
        latency=histogram.to_wire(),
    )


def test_a_latency_is_estimated_then_corrected_then_measured() -> None:
    """Each knows more than the one before; a target without a budget needs none."""
    target = TargetFactory()
    target.latency_us = 10_000
    target.save()
    artifact = ArtifactFactory(target=target, measurements={"estimated_latency_us": 6000})
    assert latency_of(artifact) == 6000
    LatencyFactor.objects.create(target=target, runtime=target.runtime, factor=1.5, n=1000)
    assert latency_of(artifact) == 9000
    ran(artifact, 20_000, times=5)
    assert latency_of(artifact) == 9000, "five say too little"
    ran(artifact, 20_000, times=50)
    measured = latency_of(artifact)
    assert measured is not None
    assert 19_000 < measured < 21_000
    target.latency_us = None
    target.save()
    assert latency_of(Artifact.objects.get(pk=artifact.pk)) is None


def test_memory_of_the_present_model_is_given_back_where_it_was_loaded_when_the_device_counted() -> None:
    """A device that starts afresh for an installation says hello before it serves: all of its heap is free then."""
    artifact = ArtifactFactory(format="plan", measurements={"peak_ram_bytes": 30_000})
    device = DeviceFactory(hello={"heap_free": 50_000, "apps": {"main": {"serving": True}, "second": {}}})
    assert room_of(device, artifact, "main").ram_bytes == 80_000
    assert room_of(device, artifact, "second").ram_bytes == 80_000, "older agents do not say it"
    assert room_of(device, artifact, "main", in_shadow=True).ram_bytes == 50_000
    device.hello["apps"]["main"]["serving"] = False
    assert room_of(device, artifact, "main").ram_bytes == 50_000
    assert room_of(device, artifact, "main", in_shadow=True).ram_bytes == 20_000, (
        "it stays, and is loaded by then"
    )
