"""Plans: everybody is in a wave or has a reason, and waves have the sizes that were asked for."""

from hypothesis import given
from hypothesis import strategies as st

from fleet.rollouts.planning import Candidate, Offer, plan
from fleet.rollouts.strategy import Strategy

OFFERS = {"pi-4": Offer(1, "a" * 64, 1000, 800), "pi-5": Offer(2, "b" * 64, 2000, 1600)}

candidate = st.builds(
    Candidate,
    device=st.uuids().map(str),
    target=st.sampled_from(["pi-4", "pi-5", "esp32", "f746"]),
    export_only=st.booleans(),
    state=st.sampled_from(["active", "active", "revoked"]),
    installed=st.sampled_from(["", "", "a" * 64, "c" * 64]),
    busy_with=st.sampled_from(["", "", "rollout 7"]),
)
fleets = st.lists(candidate, max_size=60, unique_by=lambda c: c.device)
waves = st.lists(
    st.one_of(st.integers(1, 50), st.integers(1, 100).map(lambda n: f"{n}%")), min_size=1, max_size=5
)


@given(fleets, waves)
def test_everybody_once_and_everybody_left_out_has_a_reason(
    fleet: list[Candidate], sizes: list[int | str]
) -> None:
    """Nobody is forgotten, nobody gets what is not for them."""
    made = plan(fleet, OFFERS, Strategy(waves=sizes), seed="s")
    taken = [share for wave in made.waves for share in wave]
    names = [share.device for share in taken] + [left.device for left in made.left_out]
    assert sorted(names) == sorted(c.device for c in fleet)
    assert all(made.waves)
    assert all(left.reason for left in made.left_out)
    known = {c.device: c for c in fleet}
    for share in taken:
        one = known[share.device]
        assert share.artifact == OFFERS[one.target].artifact
        assert (one.state, one.export_only, one.busy_with) == ("active", False, "")
        assert one.installed != OFFERS[one.target].sha256


def fleet(size: int, target: str = "pi-4") -> list[Candidate]:
    """Some devices of one target."""
    return [Candidate(f"{target}-{n}", target) for n in range(size)]


def test_waves_are_cumulative_and_the_rest_follows() -> None:
    """1, a quarter in all, everybody."""
    made = plan(fleet(40), OFFERS, Strategy(waves=[1, "25%"]), seed="s")
    assert [len(wave) for wave in made.waves] == [1, 9, 30]


def test_sizes_beyond_the_fleet_make_no_empty_waves() -> None:
    """Six devices in waves of 1 and 100."""
    assert [len(w) for w in plan(fleet(6), OFFERS, Strategy(waves=[1, 100, "50%"]), "s").waves] == [1, 5]


def test_the_same_seed_gives_the_same_plan_whatever_the_order() -> None:
    """What the dry run shows is what the start does."""
    one = plan(fleet(30), OFFERS, Strategy(), seed="s")
    assert plan(fleet(30)[::-1], OFFERS, Strategy(), seed="s") == one
    assert plan(fleet(30), OFFERS, Strategy(), seed="t") != one


def test_every_wave_holds_the_targets_in_proportion() -> None:
    """A quarter of the devices is a quarter of each target."""
    mixed = fleet(40) + fleet(20, "pi-5")
    first = plan(mixed, OFFERS, Strategy(waves=["25%", "100%"]), seed="s").waves[0]
    assert sorted(share.target for share in first) == ["pi-4"] * 10 + ["pi-5"] * 5


def test_small_fleets_are_told_what_they_cannot_show() -> None:
    """And large ones what they can."""
    assert "cannot show" in plan(fleet(6), OFFERS, Strategy(), "s").evidence
    assert "cannot show" not in plan(fleet(60), OFFERS, Strategy(), "s").evidence
