"""Plans: everybody is in a wave or has a reason, and waves have the sizes that were asked for."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fleet.rollouts import planning
from fleet.rollouts.choice import Offer, Room, choose
from fleet.rollouts.planning import Candidate, plan
from fleet.rollouts.strategy import Strategy

OFFERS = {"pi-4": [Offer(1, "a" * 64, 1000, 800)], "pi-5": [Offer(2, "b" * 64, 2000, 1600)]}

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


def test_draws_never_change() -> None:
    """A rollout that is planned anew, or entered late, comes to the same answers as under an earlier release."""
    assert planning.chance("7\0raspberry-pi-4\0berlin") == 0.08434091991666412
    assert planning.chance("7/share/pi-1") == 0.7933646183952583
    first, _ = plan(fleet(12), OFFERS, Strategy(waves=[3, "100%"]), "s").waves
    assert [share.device for share in first] == ["pi-4-5", "pi-4-11", "pi-4-7"]


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
        assert share.artifact == OFFERS[one.target][0].artifact
        assert (one.state, one.export_only, one.busy_with) == ("active", False, "")
        assert one.installed != OFFERS[one.target][0].sha256


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


def named(*names: str, target: str = "pi-4", **labels: str) -> list[Candidate]:
    """Devices with labels."""
    return [Candidate(name, target, facts={**labels, "name": name, "target": target}) for name in names]


def reasons(made: object) -> dict[str, str]:
    """Why each device that is left out gets nothing."""
    return {left.device: left.reason for left in made.left_out}  # type: ignore[attr-defined]


def test_rules_choose_and_exclude() -> None:
    """Only Berlin, not the laboratory, nobody of an excluded group."""
    devices = named("a", "b", site="berlin") + named("c", site="lab") + named("d", site="oslo")
    devices += [Candidate("e", "pi-4", facts={"site": "berlin"}, groups=frozenset({"showroom"}))]
    who = {"rule": "site in (berlin, lab)", "exclude": "site=lab or name=b"}
    made = plan(devices, OFFERS, Strategy.model_validate({"who": who}), "s")
    assert [share.device for share in made.shares] == ["a"]
    assert reasons(made) == {
        "b": "is excluded by 'site=lab or name=b'",
        "c": "is excluded by 'site=lab or name=b'",
        "d": "does not match 'site in (berlin, lab)'",
        "e": "is excluded with group 'showroom'",
    }


def test_a_share_and_a_hold_back_keep_the_proportions_of_targets_and_sites() -> None:
    """Half of them take part, a fifth of those is held back, each from every corner."""
    devices = [
        candidate
        for target in ("pi-4", "pi-5")
        for site in ("x", "y")
        for candidate in named(*(f"{target}-{site}-{n}" for n in range(20)), target=target, site=site)
    ]
    who = {"share": "50%", "hold_back": "20%"}
    made = plan(devices, OFFERS, Strategy.model_validate({"who": who}), "s")
    assert (made.devices, len(made.held_back)) == (32, 8)
    corners = [name[:6] for name in made.held_back]
    assert all(corners.count(corner) == 2 for corner in set(corners))
    assert set(reasons(made).values()) == {
        "is not among the 50% that take part",
        "held back: it stays on what it runs, for comparison",
    }
    assert [left.device for left in made.left_out if left.reason.startswith("held")] == made.held_back


def test_a_target_on_many_small_sites_is_held_back_as_often_as_one_on_a_large_site() -> None:
    """A tenth of each target, and no site is spared, or chosen, whatever the seed."""
    names = [f"shop-{n:02}" for n in range(50)]
    shops = [each for name in names for each in named(name, site=name)]
    devices = shops + named(*(f"hall-{n}" for n in range(50)), target="pi-5", site="hall")
    strategy = Strategy.model_validate({"who": {"hold_back": "10%"}})
    held = [plan(devices, OFFERS, strategy, str(seed)).held_back for seed in range(200)]
    assert all(sum(name.startswith("shop") for name in each) == 5 for each in held)
    times = Counter(name for each in held for name in each)
    assert all(4 < times[device.device] < 45 for device in devices)


def test_somebody_always_takes_part() -> None:
    """A hold-back of a single device would leave nobody."""
    strategy = Strategy.model_validate({"who": {"hold_back": "50%"}})
    assert (plan(fleet(1), OFFERS, strategy, "s").devices, plan(fleet(2), OFFERS, strategy, "s").devices) == (
        1,
        1,
    )


def test_the_most_accurate_artifact_that_fits_is_chosen_gate_by_gate() -> None:
    """The best one needs too much memory, the next takes too long."""
    offers = [
        Offer(1, "a", 900, 900, peak_ram_bytes=300_000, latency_us=900, accuracy=0.97),
        Offer(2, "b", 800, 800, peak_ram_bytes=90_000, latency_us=9000, accuracy=0.95),
        Offer(3, "c", 700, 700, peak_ram_bytes=80_000, latency_us=800, accuracy=0.93),
        Offer(4, "d", 600, 600, peak_ram_bytes=40_000, latency_us=400, accuracy=0.90),
    ]
    made = choose(offers, Room(100_000, 1000), "esp32")
    assert made.offer == offers[2]
    assert [(gate.gate, gate.left) for gate in made.gates] == [
        ("target", 4),
        ("memory", 3),
        ("latency", 2),
        ("accuracy", 1),
    ]
    assert "the most accurate of 2: 93.0%" in made.gates[-1].sentence
    assert choose(offers, Room(), "esp32").offer == offers[0]
    assert choose(offers, Room(10_000), "esp32").obstacle == (
        "needs 40 kB of memory, and 10 kB are free on the device"
    )


def test_a_larger_artifact_than_a_day_allows_is_left_out() -> None:
    """2 MB a day on LTE-M: 1.6 kB go, 2000 bytes a day by label do not."""
    budget = {"budgets": {"device_bytes_per_day": 1000}}
    made = plan(fleet(1) + fleet(1, "pi-5"), OFFERS, Strategy.model_validate(budget), "s")
    assert reasons(made) == {"pi-5-0": "needs 1600 bytes at once, and its budget is 1000 a day"}
    tight = named("a", bytes_per_day="500")
    assert "its budget is 500 a day" in reasons(plan(tight, OFFERS, Strategy(), "s"))["a"]


def test_versions_to_pass_through_come_first() -> None:
    """From 1 by 3 to 5; who runs 4 goes straight on, and so does who starts afresh."""
    strategy = Strategy.model_validate({"who": {"must_pass_through": [3]}})
    devices = [Candidate(f"v{n}", "pi-4", version=n) for n in (0, 1, 4)] + [Candidate("w", "pi-5", version=1)]
    hops = {3: {"pi-4": [Offer(7, "c" * 64, 100, 90)]}}
    made = plan(devices, OFFERS, strategy, "s", hops)
    assert {share.device: (share.hops, share.transport_bytes) for share in made.shares} == {
        "v0": ((), 800),
        "v1": ((7,), 890),
        "v4": ((), 800),
    }
    assert "must pass through version 3 first" in reasons(made)["w"]


def test_a_higher_priority_takes_devices_from_another_rollout() -> None:
    """An equal one does not."""
    busy = [Candidate("a", "pi-4", busy_with="rollout 7", busy_priority=1)]
    assert plan(busy, OFFERS, Strategy(priority=2), "s").shares[0].takes_from == "rollout 7"
    assert reasons(plan(busy, OFFERS, Strategy(priority=1), "s")) == {"a": "rollout 7 is at work on it"}
