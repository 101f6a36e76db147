"""Windows, rates, budgets and consent: as pure functions, and as the engine's tick obeys them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import Conflict, Refused
from fleet.registry import offers
from fleet.rollouts import admission, consents, offering, services, windows
from fleet.rollouts.admission import Spent, Waiting, admit, rate_now
from fleet.rollouts.conditions import Rate, Window
from fleet.rollouts.models import Delivery, Rollout
from fleet.rollouts.strategy import Strategy, read
from tests.factories import ArtifactFactory
from tests.fleet.rollouts.world import World

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def rules(**parts: Any) -> Strategy:
    """A strategy with these parts."""
    return Strategy.model_validate(parts)


def waiting(n: int, **facts: Any) -> list[Waiting]:
    """Devices that wait."""
    return [Waiting(uuid4(), number, 600, **facts) for number in range(n)]


def test_a_window_opens_by_the_clock_of_the_device() -> None:
    """02:00 for two hours: in Berlin that is 01:00 UTC, in Los Angeles 10:00 UTC."""
    window = Window(cron="0 2 * * *", minutes=120, zone="Europe/Berlin")
    half_past_two = datetime(2026, 11, 21, 1, 30, tzinfo=UTC)
    assert windows.is_open(window, "", half_past_two)
    assert not windows.is_open(window, "America/Los_Angeles", half_past_two)
    assert windows.is_open(window, "America/Los_Angeles", datetime(2026, 11, 21, 11, tzinfo=UTC))
    assert windows.is_open(window, "Mars/Olympus", half_past_two), "a zone that nobody knows is the default"
    assert not windows.is_open(window, "", half_past_two + timedelta(minutes=90)), (
        "the end does not belong to it"
    )


@given(st.integers(0, 366 * 24 * 60))
def test_an_opening_is_now_or_later(minutes: int) -> None:
    """Also where clocks are changed: Berlin, the last Sundays of March and October."""
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    found = windows.opening(Window(cron="30 2 * * 0", minutes=60), "Europe/Berlin", now)
    assert found is not None
    assert found.holds(now) or now < found.start <= now + timedelta(days=8)


def test_the_rate_grows_with_success() -> None:
    """10 a minute, twice as many for each 20 that succeeded, 60 at most."""
    rate = Rate(per_minute=10, factor=2, after_successes=20, most_per_minute=60)
    assert [rate_now(rate, n) for n in (0, 19, 20, 40, 60, 10**9)] == [10, 10, 20, 40, 60, 60]
    assert rate_now(Rate(per_minute=1, factor=1.1, after_successes=1), 3) == 4


def test_two_megabytes_a_day_are_obeyed() -> None:
    """What was sent within 24 hours counts, and so does what this very look admits."""
    budget = rules(budgets={"device_bytes_per_day": 1000, "site_bytes_per_day": 1500})
    chosen = admit(waiting(4, site="x"), budget, Spent({0: 500}, {"x": 200}), NOW)
    assert [each.device for each in chosen.chosen] == [1, 2]
    assert dict(chosen.reasons) == {
        "for the budget of bytes of the device": 1,
        "for the budget of bytes of site 'x'": 1,
    }
    assert len(admit(waiting(4), budget, Spent(), NOW).chosen) == 4, "no site, no budget of it"
    assert not admit(waiting(1, byte_budget=500), rules(), Spent(), NOW).chosen


@given(st.lists(st.integers(1, 900), max_size=30), st.integers(900, 3000))
def test_a_site_never_takes_more_than_its_budget(sizes: list[int], budget: int) -> None:
    """Whatever the sizes."""
    queue = [Waiting(uuid4(), n, size, site="x") for n, size in enumerate(sizes)]
    chosen = admit(queue, rules(budgets={"site_bytes_per_day": budget}), Spent(), NOW).chosen
    assert sum(each.bytes for each in chosen) <= budget


def test_waits_between_tries_grow_to_their_limit() -> None:
    """1, 2, 4 minutes, and never more than 5."""
    retry = rules(retry={"attempts": 9, "first_wait_s": 60, "factor": 2, "most_wait_s": 300})
    assert [admission.wait_before_try(retry, n) for n in range(5)] == [60, 120, 240, 300, 300]


@pytest.mark.parametrize(
    "part",
    [
        {"window": {"cron": "61 * * * *", "minutes": 5}},
        {"window": {"cron": "0 2 * * *", "minutes": 5, "zone": "Mars/Olympus"}},
        {"window": {"cron": "0 2 * * *", "minutes": 5, "zone": "../../etc/passwd"}},
        {"who": {"rule": "site=="}},
        {"who": {"hold_back": "110%"}},
        {"rate": {"per_minute": 0}},
    ],
)
def test_nonsense_is_refused_in_words(part: dict[str, Any]) -> None:
    """Before anything is made of it."""

    with pytest.raises(Refused, match="the strategy is not valid"):
        read(part)


def going(rollout: Rollout) -> int:
    """How many devices were asked."""
    return rollout.deliveries.exclude(offered_at=None).count()


@pytest.mark.django_db
def test_nobody_is_asked_outside_the_window() -> None:
    """It is noon; the window opens at two in the night."""
    world = World(2)
    rollout = world.create(
        waves=["100%"], window={"cron": "0 2 * * *", "minutes": 60, "zone": "Europe/Berlin"}
    )
    world.tick(3, hours=4)
    assert going(rollout) == 0
    assert "2 wait for a window, the next opens at 2026-11-22 01:00 UTC" in offering.why_waiting(
        rollout, world.now
    )
    world.now = datetime(2026, 11, 22, 1, 5, tzinfo=UTC)
    world.tick()
    assert going(rollout) == 2


@pytest.mark.django_db
def test_who_was_away_in_the_window_begins_in_a_later_one() -> None:
    """What it finds when it returns at noon has expired, and is signed again when the window opens."""
    world = World(1)
    window = {"cron": "0 2 * * *", "minutes": 60}
    world.now = datetime(2026, 11, 22, 2, 5, tzinfo=UTC)
    rollout = world.create(waves=["100%"], window=window, delivery_timeout_s=7 * 24 * 3600)
    device, closes = world.devices["pi-0"], datetime(2026, 11, 22, 3, tzinfo=UTC)
    first = device.desired()
    assert first["expires_at"] == closes.timestamp()
    world.tick(20, hours=1)
    device.hello(world.now)
    world.tick(2)
    assert device.desired() == first
    world.now = datetime(2026, 11, 23, 2, 1, tzinfo=UTC)
    world.tick()
    assert device.desired()["expires_at"] == (closes + timedelta(days=1)).timestamp()
    assert device.desired()["delivery"] == first["delivery"]
    services.roll_back(world.user, world.fresh(rollout), now=world.now)
    world.tick(1, hours=3)
    assert device.desired()["expires_at"] == (world.now + timedelta(days=1)).timestamp(), (
        "not so the way back"
    )


@pytest.mark.django_db
def test_the_tick_keeps_to_the_rate() -> None:
    """One a minute at first."""
    world = World(4)
    rollout = world.create(waves=["100%"], rate={"per_minute": 1, "factor": 3, "after_successes": 1})
    world.tick(5)
    assert going(rollout) == 1
    world.succeed(world.offered())
    world.tick(2)
    assert going(rollout) == 3, "one succeeded, so three a minute, one of them gone already"


@pytest.mark.django_db
def test_who_failed_and_waits_counts_for_the_rate() -> None:
    """Or a version that fails at once would go to everybody in the first minute."""
    world = World(4)
    world.create(waves=["100%"], rate={"per_minute": 1}, retry={"attempts": 2, "first_wait_s": 600})
    world.tick()
    world.offered()[0].status("failed", world.now)
    world.tick(20)
    assert not world.offered()
    world.tick(1, seconds=60)
    assert len(world.offered()) == 1


@pytest.mark.django_db
def test_the_tick_keeps_to_the_budget_of_a_site_across_rollouts() -> None:
    """Three devices share a line; the next ones are asked when the bytes of the first are a day old."""
    world = World(3)
    for device in world.devices.values():
        device.row.labels = {"site": "pier"}
        device.row.save()
    size = offers.bytes_to_install(world.v2)
    assert size > world.v2.transport_bytes + world.v2.self_test_bytes, "indexes travel as well"
    rollout = world.create(
        waves=["100%"], budgets={"site_bytes_per_day": 2 * size}, delivery_timeout_s=200_000
    )
    world.tick(3)
    assert going(rollout) == 2
    world.tick(1, hours=25)
    assert going(rollout) == 3


@pytest.mark.django_db
def test_bytes_count_from_when_the_device_fetched_them() -> None:
    """It was away for two days, fetched the version, and failed: no second time on that day."""
    world = World(1)
    budget = offers.bytes_to_install(world.v2)
    world.create(
        waves=["100%"],
        budgets={"device_bytes_per_day": budget},
        retry={"attempts": 2, "first_wait_s": 1},
        delivery_timeout_s=1_000_000,
    )
    world.tick(1, days=2)
    device = world.offered()[0]
    for state in ("downloading", "verifying", "failed"):
        device.status(state, world.now)
    world.tick(2, hours=11)
    assert not world.offered()
    world.tick(1, hours=3)
    assert world.offered()


@pytest.mark.django_db
def test_a_device_that_asks_waits_for_its_owner() -> None:
    """Now, tonight, or no."""
    world = World(4)
    for device in world.devices.values():
        device.row.labels = {"consent": "ask", "timezone": "Europe/Berlin"}
        device.row.save()
    rollout = world.create(waves=["100%"], delivery_timeout_s=200_000)
    world.tick(3)
    assert (going(rollout), "for the consent" in offering.why_waiting(rollout, world.now)) == (0, True)
    for name, said in (("pi-0", "now"), ("pi-1", "tonight"), ("pi-2", "no")):
        consents.answer(world.user, rollout, name, said, world.now)
    world.tick(2)
    assert [device.name for device in world.offered()] == ["pi-0"]
    assert Delivery.objects.get(device__name="pi-2").reason == "its owner said no"
    world.now = datetime(2026, 11, 21, 21, 1, tzinfo=UTC)
    world.tick(2)
    assert {device.name for device in world.offered()} == {"pi-0", "pi-1"}
    with pytest.raises(Conflict, match="no longer waits"):
        consents.answer(world.user, rollout, "pi-0", "no", world.now)


@pytest.mark.django_db
def test_each_wave_waits_for_a_persons_yes() -> None:
    """The gate says proceed, and the rollout asks all the same."""

    world = World(3)
    rollout = world.create(waves=[1, "100%"], approve_waves=True)
    world.succeed(world.offered())
    world.tick(4)
    rollout = world.fresh(rollout)
    assert (rollout.state, going(rollout)) == ("held", 1)
    assert "wave 2 waits for a person's yes" in rollout.reason
    services.advance(world.user, rollout, now=world.now)
    world.tick(3)
    assert going(rollout) == 3
    world.succeed(world.offered())
    world.tick(4)
    assert world.fresh(rollout).state == "succeeded", "after the last wave nobody is asked"


@pytest.mark.django_db
def test_a_step_that_takes_too_long_ends() -> None:
    """Ten seconds to start a download, while the delivery may take ten minutes."""
    world = World(2)
    rollout = world.create(waves=["100%"], step_timeouts={"offered": 10})
    first, second = world.offered()
    first.status("downloading", world.now)
    world.tick(1, seconds=12)
    states = dict(rollout.deliveries.values_list("device__name", "state"))
    assert (states[first.name], states[second.name]) == ("downloading", "timed_out")
    late = rollout.deliveries.get(device__name=second.name)
    assert late.reason == "no end after 10 s in state offered"


@pytest.mark.django_db
def test_a_higher_priority_supersedes_what_waits_and_what_is_at_work() -> None:
    """Never two at once on a device."""
    world = World(2)
    first = world.create(waves=[1, "100%"])
    second = world.create(waves=["100%"], priority=3)
    assert set(first.deliveries.values_list("state", flat=True)) == {"superseded"}
    assert set(second.deliveries.values_list("state", flat=True)) == {"offered"}
    assert f"rollout {second.pk} has a higher priority" in set(
        first.deliveries.values_list("reason", flat=True)
    )


@pytest.mark.django_db
def test_a_rollout_that_lost_a_device_does_not_try_it_again() -> None:
    """The first one's delivery failed and waits for its next try when the second one reaches the device."""
    world = World(2)
    first = world.create(waves=["100%"], retry={"attempts": 2, "first_wait_s": 60})
    second = world.create(waves=[1, "100%"], priority=3)
    later = second.deliveries.get(state="pending").device.name
    world.devices[later].status("failed", world.now, reason="no room")
    world.tick(2)
    assert first.deliveries.get(device__name=later).state == "pending"
    world.succeed([device for device in world.devices.values() if device.name != later])
    world.tick(2)
    assert second.deliveries.get(device__name=later).state == "offered"
    world.tick(2, seconds=61)
    assert first.deliveries.get(device__name=later).state == "superseded"
    assert second.deliveries.get(device__name=later).state == "offered"


@pytest.mark.django_db
def test_a_device_never_installs_for_two_apps_at_once() -> None:
    """The second app waits, and says so, until the first has its end."""
    world = World(1)
    world.create(waves=["100%"])
    other = _for_second_app(world)
    world.tick(3)
    assert going(other) == 0
    assert offering.why_waiting(world.fresh(other), world.now) == "1 waits for another app of the device"
    world.succeed(world.offered())
    world.tick(2)
    assert going(other) == 1


def _for_second_app(world: World) -> Rollout:
    artifact = ArtifactFactory(target=world.v2.target)
    rollout = services.create(
        world.user, version=artifact.version, group=world.group, app="second", rules={"waves": ["100%"]}
    )
    return services.start(world.user, rollout)


@pytest.mark.django_db
def test_why_this_artifact_is_kept_with_the_delivery() -> None:
    """Gate by gate, for the page and the API."""
    world = World(1)
    delivery = world.create(waves=["100%"]).deliveries.get()
    assert [gate["gate"] for gate in delivery.why] == ["target", "memory", "latency", "accuracy"]
    assert all(gate["sentence"] for gate in delivery.why)


@pytest.mark.django_db
def test_what_failed_is_tried_again_after_a_wait_and_then_ends() -> None:
    """Two tries, a minute apart; the gate hears of the last."""
    world = World(1)
    rollout = world.create(waves=["100%"], retry={"attempts": 2, "first_wait_s": 60})
    world.offered()[0].status("failed", world.now, reason="no room")
    world.tick(3)
    delivery = rollout.deliveries.get()
    assert (delivery.state, delivery.tries) == ("pending", 1)
    assert "tried again in 60 s" in delivery.reason
    world.tick(1, seconds=61)
    world.offered()[0].status("failed", world.now, reason="no room")
    world.tick(3)
    assert (rollout.deliveries.get().state, world.fresh(rollout).state) == ("failed", "held")
