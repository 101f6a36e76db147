"""A tick of a rollout to many devices sends no more statements than one to fewer, whatever it has to do."""

import pytest

from fleet.rollouts import deliveries, field_evidence, preparation
from fleet.rollouts.models import Delivery, Rollout
from tests.benchmarks import rollout_engine


def ticks(devices: int) -> dict[str, int]:
    """Statements of each kind of tick, from the one that draws up the plan to one that sends devices back."""
    rollout: Rollout = rollout_engine.laid_in(devices)
    tick, answered = rollout_engine.timed_tick, rollout_engine.answered_tick
    sent = {"plans": tick(0).queries, "writes": tick(1).queries}
    assert rollout.deliveries.count() == preparation.WRITTEN_AT_ONCE
    second = 2
    while Rollout.objects.get(pk=rollout.pk).state == "starting":
        tick(second)
        second += 1
    tick(second)
    before = rollout.deliveries.filter(state="offered").count()
    sent["offers"] = tick(second + 1).queries
    assert rollout.deliveries.filter(state="offered").count() - before == deliveries.MOST_A_TICK
    sent["looks"] = answered(rollout, 0.5, second + 2).queries
    answered(rollout, 1.0, second + 3)
    sent["reads"] = tick(second + 4).queries
    assert rollout.waves.get().state == "soaking"
    bad: Rollout = rollout_engine.laid_in(devices, "bad")
    rollout_engine.laid_out(bad)
    sent["turns round"] = rollout_engine.stopped_tick(bad, second + 5).queries
    assert bad.deliveries.filter(state="cancelled").count() == devices - devices * 3 // 4
    sent["sends back"] = tick(second + 6).queries
    assert bad.deliveries.filter(kind="roll_back").count() == 2 * deliveries.MOST_A_TICK
    Rollout.objects.filter(pk__in=[rollout.pk, bad.pk]).update(state="aborted")
    Delivery.objects.update(state="cancelled")
    return sent


@pytest.mark.django_db
def test_a_tick_sends_the_same_number_of_statements_whatever_the_fleet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty offers and ten reports a tick, for two hundred devices and for four hundred."""
    monkeypatch.setattr(deliveries, "MOST_A_TICK", 40)
    monkeypatch.setattr(field_evidence, "AT_ONCE", 10)
    monkeypatch.setattr(preparation, "WRITTEN_AT_ONCE", 50)
    assert ticks(200) == ticks(400)
