"""What the field says of a device before and after, as the gate's numbers."""

from datetime import timedelta
from typing import Any

import pytest

from fleet.rollouts import evidence, field_evidence
from fleet.rollouts.models import Delivery
from fleet.telemetry.models import Report
from tests.fleet.rollouts.world import World

pytestmark = pytest.mark.django_db


def report(world: World, name: str, sha256: str, at: Any, sequence: int, **facts: Any) -> None:
    """One window of a device."""
    Report.objects.create(
        device=world.devices[name].row,
        epoch=77,
        boot=1,
        sequence=sequence,
        app="main",
        artifact_sha256=sha256,
        phase="live",
        start_at=at,
        end_at=at,
        **{"n": 100, "latency": [[100, 100]], "heap_free_min": 8000, "confidence": [0, 0, 0, 100], **facts},
    )


def test_a_device_is_compared_with_itself_before() -> None:
    """An octave slower, half the heap, one error in ten: taken once, when its wave has soaked."""
    world = World(2)
    report(world, "pi-0", world.v1.sha256, world.now - timedelta(hours=1), 1)
    report(world, "pi-1", world.v1.sha256, world.now - timedelta(hours=1), 1)
    rollout = world.create(waves=["100%"], soak_seconds=30)
    world.succeed(world.offered())
    for name in world.devices:
        later = world.now + timedelta(minutes=2)
        report(world, name, world.v2.sha256, later, 2, latency=[[116, 100]], heap_free_min=4000, errors=10)
    world.tick(2)
    world.tick(2, seconds=40)
    taken = Delivery.objects.filter(rollout=rollout).first()
    assert taken is not None
    found = taken.evidence["field"]["differences"]
    assert found["latency"] == pytest.approx(1.0, abs=0.1)
    assert (found["heap"], found["errors"], found["confidence"]) == (0.5, 0.1, 0.0)
    outcome = evidence.gather(rollout, rollout.waves.get(), wave_is_over=True).outcomes[0]
    assert outcome.measures["latency"].value == found["latency"]
    gates = {gate["name"]: gate for gate in rollout.waves.get().verdict["gates"]}
    assert gates["latency"]["n"] == 2


def test_without_reports_from_before_there_is_no_difference() -> None:
    """And the rollout goes its way."""
    world = World(1)
    rollout = world.create(waves=["100%"])
    world.succeed(world.offered())
    world.tick(4)
    assert world.fresh(rollout).state == "succeeded"
    assert Delivery.objects.get(rollout=rollout).evidence["field"]["differences"] == {}


@pytest.mark.parametrize(
    ("slower_at_home", "excess", "at_once"), [(True, 0.0, 100), (False, 0.5, 100), (False, 0.5, 1)]
)
def test_what_changed_on_devices_held_back_as_well_is_not_held_against_the_version(
    slower_at_home: bool, excess: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An octave slower: if those that stayed on the old version are too, it was the season; each is used once.

    Also where reports of one device are read at a time.
    """
    monkeypatch.setattr(field_evidence, "AT_ONCE", at_once)
    world = World(6)
    for name in world.devices:
        report(world, name, world.v1.sha256, world.now - timedelta(hours=1), 1)
    rollout = world.create(
        waves=[2, "100%"], soak_seconds=30, who={"hold_back": "33%"}, tolerated={"latency": 0.9}
    )
    assert len(rollout.held_back) == 2
    for _ in range(2):
        world.succeed(world.offered())
        later = world.now + timedelta(minutes=2)
        for name in world.devices:
            held = name in rollout.held_back
            sha256 = world.v1.sha256 if held else world.v2.sha256
            slow = 100 if held and not slower_at_home else 116
            report(world, name, sha256, later, int(later.timestamp()), latency=[[slow, 100]])
        world.tick(2)
        world.tick(4, seconds=40)
    kept = [d.evidence["field"] for d in rollout.deliveries.order_by("position")]
    assert len(kept) == 4
    assert all(field["differences"]["latency"] == pytest.approx(1.0, abs=0.1) for field in kept)
    paired = [field["against_hold_back"]["latency"] for field in kept if "against_hold_back" in field]
    assert paired == [pytest.approx(excess, abs=0.05)] * 2
    assert sorted(name for field in kept for name in field.get("held_back", [])) == sorted(rollout.held_back)
    gates = {gate["name"]: gate for gate in rollout.waves.get(number=2).verdict["gates"]}
    assert gates["latency_held_back"]["n"] == 2
    assert "more than on devices held back" in gates["latency_held_back"]["sentence"]
