"""A tick of a rollout to many devices sends no more statements than one to fewer, whatever it has to do."""

from datetime import timedelta

import pytest

from fleet.rollouts import deliveries, engine, field_evidence
from fleet.rollouts.models import Rollout
from tests.benchmarks import rollout_engine


def ticks(devices: int) -> dict[str, int]:
    """Statements of a tick that offers, of one in which half have answered, and of one that reads their reports."""
    rollout: Rollout = rollout_engine.laid_in(devices)
    engine.begin(rollout, rollout_engine.NOW)
    engine.tick(rollout_engine.NOW + timedelta(seconds=1))
    sent = {"offers": rollout_engine.timed_tick(2).queries}
    assert rollout.deliveries.filter(state="offered").count() == 2 * deliveries.MOST_A_TICK
    sent["looks"] = rollout_engine.answered_tick(rollout, 0.5, 3).queries
    rollout_engine.answered_tick(rollout, 1.0, 4)
    sent["reads"] = rollout_engine.timed_tick(5).queries
    assert rollout.waves.get().state == "soaking"
    rollout.deliveries.update(state="cancelled")
    Rollout.objects.filter(pk=rollout.pk).update(state="aborted")
    return sent


@pytest.mark.django_db
def test_a_tick_sends_the_same_number_of_statements_whatever_the_fleet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty offers and ten reports a tick, for a hundred and fifty devices and for four hundred."""
    monkeypatch.setattr(deliveries, "MOST_A_TICK", 40)
    monkeypatch.setattr(field_evidence, "AT_ONCE", 10)
    assert ticks(150) == ticks(400)
