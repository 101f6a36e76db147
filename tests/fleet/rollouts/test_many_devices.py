"""A tick of a rollout to many devices sends no more statements than one to fewer."""

from datetime import timedelta

import pytest

from fleet.rollouts import deliveries, engine
from fleet.rollouts.models import Rollout
from tests.benchmarks import rollout_engine


def statements(devices: int) -> int:
    """Of the second tick of a rollout whose wave takes more ticks than that."""
    rollout: Rollout = rollout_engine.laid_in(devices)
    engine.begin(rollout, rollout_engine.NOW)
    engine.tick(rollout_engine.NOW + timedelta(seconds=1))
    with rollout_engine.counted() as sent:
        engine.tick(rollout_engine.NOW + timedelta(seconds=2))
    assert rollout.deliveries.filter(state="offered").count() == 2 * deliveries.MOST_A_TICK
    rollout.deliveries.update(state="cancelled")
    Rollout.objects.filter(pk=rollout.pk).update(state="aborted")
    return len(sent)


@pytest.mark.django_db
def test_a_tick_sends_the_same_number_of_statements_whatever_the_fleet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty a tick, to a hundred devices and to four hundred."""
    monkeypatch.setattr(deliveries, "MOST_A_TICK", 40)
    assert statements(100) == statements(400)
