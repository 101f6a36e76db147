"""Every state x every event: ends are final, every other state has a way out, and a race has one winner."""

import re
from pathlib import Path

import pytest

from fleet.rollouts import states
from fleet.rollouts.models import Delivery, Rollout, Wave
from tests.factories import DeviceFactory, GroupFactory, VersionFactory

README = Path(__file__).parents[3] / "README.md"

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


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["wave", "delivery"])
def test_every_wave_and_delivery_state_and_event(kind: str) -> None:
    """The same for the other two tables."""
    rollout = Rollout.objects.create(version=VersionFactory(), group=GroupFactory())
    row: states.Row = Wave.objects.create(rollout=rollout, number=1)
    if kind == "delivery":
        row = Delivery.objects.create(rollout=rollout, device=DeviceFactory())
    for state in type(row).State:
        for event, moves in states.table_of(row).items():
            type(row).objects.filter(pk=row.pk).update(state=state)
            row.refresh_from_db()
            assert states.advance(row, event) is (state in moves)
            assert type(row).objects.get(pk=row.pk).state == row.state == moves.get(state, state)


def test_no_state_waits_for_ever() -> None:
    """What a person or a device may leave alone has a limit; the rest waits for something that has one."""
    waits_for = {
        "rollout": {"draft": "holds nothing", "scheduled": "its time", "running": "waves", "rolling_back": "deliveries"},
        "wave": {"pending": "wave before", "running": "deliveries", "soaking": "soak_seconds", "held": "rollout held"},
        "delivery": dict.fromkeys(map(str, states.ACTIVE), "delivery_timeout_s"),
    }  # fmt: skip
    for (_, kinds, ends), (name, others) in zip(TABLES, waits_for.items(), strict=True):
        for state in kinds:
            assert str(state) in ends or str(state) in others or state in states.LIMITS, (name, state)
    for state, (_, event) in states.LIMITS.items():
        table = states.DELIVERY if state in Delivery.State and state not in Rollout.State else states.ROLLOUT
        assert state in table[event]


DRAWN = re.compile(r"^\s+(\w+) --> (\w+): (.+)$", re.MULTILINE)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_readme_draws_exactly_these_tables(number: int) -> None:
    """Arrow by arrow; 'at_work' stands for the five states in which a device is busy."""
    drawing = re.findall(r"```mermaid\n(stateDiagram.*?)```", README.read_text(), re.DOTALL)[number]
    busy = [str(state) for state in states.ACTIVE] if number == 2 else []
    drawn = {
        (each, new, event)
        for old, new, events in DRAWN.findall(drawing)
        for each in (busy if old == "at_work" else [old])
        for event in events.split(", ")
    }
    table = TABLES[number][0]
    told = {(str(o), str(n), e) for e, moves in table.items() if e not in busy for o, n in moves.items()}
    assert drawn == told
