"""Every state x every event: ends are final, every other state has a way out, and a race has one winner."""

import pytest

from fleet.rollouts import states
from fleet.rollouts.models import Delivery, Rollout, Wave
from tests.factories import GroupFactory, VersionFactory

TABLES = [
    (states.ROLLOUT, Rollout.State, {str(state) for state in Rollout.ENDS}),
    (states.WAVE, Wave.State, {"passed", "failed"}),
    (states.DELIVERY, Delivery.State, {str(state) for state in Delivery.ENDS}),
]


@pytest.mark.parametrize(("table", "kinds", "ends"), TABLES)
def test_tables_are_complete(table: states.Table, kinds: type, ends: set[str]) -> None:
    """Every state is reached, and only ends have no way out; a person or the device may still lead out of some ends."""
    every = {str(state) for state in kinds}
    leaving = {str(old) for moves in table.values() for old in moves}
    entered = {str(new) for moves in table.values() for new in moves.values()}
    reopened = {
        "Rollout.State": {"succeeded", "aborted"},
        "Delivery.State": {"failed", "timed_out", "succeeded"},
    }
    assert every - leaving == ends - reopened.get(kinds.__qualname__, set())
    assert every - entered <= {str(next(iter(kinds)))}


@pytest.mark.parametrize(("table", "kinds", "ends"), TABLES)
def test_every_state_reaches_an_end(table: states.Table, kinds: type, ends: set[str]) -> None:
    """Nothing waits for ever by construction."""
    for state in kinds:
        reached, fresh = set(), {str(state)}
        while fresh:
            reached |= fresh
            fresh = {str(new) for m in table.values() for old, new in m.items() if old in reached} - reached
        assert reached & ends


@pytest.mark.django_db
def test_every_rollout_state_and_event() -> None:
    """`advance` does exactly what the table says, for every pair."""
    rollout = Rollout.objects.create(version=VersionFactory(), group=GroupFactory())
    for state in Rollout.State:
        for event, moves in states.ROLLOUT.items():
            Rollout.objects.filter(pk=rollout.pk).update(state=state, reason="before")
            rollout.refresh_from_db()
            done = states.advance(rollout, event, reason="after")
            stored = Rollout.objects.get(pk=rollout.pk)
            assert done is (state in moves)
            assert (stored.state, stored.reason) == ((moves[state], "after") if done else (state, "before"))
            assert rollout.state == stored.state


@pytest.mark.django_db
def test_of_two_who_try_one_wins() -> None:
    """A row that another process changed since it was read stays as that left it."""
    rollout = Rollout.objects.create(version=VersionFactory(), group=GroupFactory(), state="running")
    mine, theirs = Rollout.objects.get(pk=rollout.pk), Rollout.objects.get(pk=rollout.pk)
    assert states.advance(theirs, "pause")
    assert not states.advance(mine, "succeed")
    assert Rollout.objects.get(pk=rollout.pk).state == "paused"
