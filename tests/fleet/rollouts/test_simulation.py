"""Simulations and forecasts: what they promise is what the gates do."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from fleet.errors import Refused
from fleet.rollouts import imagined
from fleet.rollouts.choice import Offer
from fleet.rollouts.forecast import forecast
from fleet.rollouts.imagined import Fleet, Truth
from fleet.rollouts.planning import Candidate, Plan, plan
from fleet.rollouts.simulation import Simulated, assumptions, histogram, simulate
from fleet.rollouts.strategy import Strategy

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FLEET = Fleet(NOON, {"pi-4": 100.0})
OFFERS = {"pi-4": [Offer(1, "a" * 64, 1000, 800)], "pi-5": [Offer(2, "b" * 64, 2000, 1600)]}


def rules(**parts: Any) -> Strategy:
    """A strategy."""
    return Strategy.model_validate(parts)


def made(size: int, strategy: Strategy, installed: str = "c" * 64, **labels: str) -> Plan:
    """A plan for devices of one target that run something else."""
    devices = [Candidate(f"d{n}", "pi-4", facts=labels, installed=installed) for n in range(size)]
    return plan(devices, OFFERS, strategy, "s")


def played(
    size: int, failing: float, fleet: Fleet = FLEET, labels: dict[str, str] | None = None, **parts: Any
) -> Simulated:
    """A hundred rollouts."""
    strategy = rules(**parts)
    return simulate(made(size, strategy, **labels or {}), fleet, Truth(failing), rules=strategy, rollouts=100)


def test_a_perfect_version_reaches_everybody_and_a_broken_one_only_the_first() -> None:
    """The ends of the scale."""
    good, broken = played(60, 0.0), played(60, 1.0)
    assert (good.stopped.mean(), good.exposed.min(), good.bytes.max()) == (0, 60, 60 * 800)
    assert (broken.stopped.mean(), broken.exposed.max(), broken.missed) == (1, 1, 0)


def test_without_a_strategy_the_default_one_is_played_and_a_plan_of_nobody_is_refused() -> None:
    """simulate(plan, fleet, truth) is all that is needed."""
    assert simulate(made(6, rules()), FLEET, Truth(1.0), rollouts=100).stopped.all()
    with pytest.raises(Refused, match="without devices"):
        simulate(Plan(), FLEET, Truth())


def test_only_one_target_is_bad() -> None:
    """Its own gate finds it, and the same seed gives the same."""
    strategy = rules(waves=["100%"])
    both = plan([Candidate(f"d{n}", f"pi-{4 + n % 2}") for n in range(80)], OFFERS, strategy, "s")
    truth = Truth(0.0, {"pi-5": 0.6})
    first = simulate(both, FLEET, truth, rules=strategy, rollouts=200)
    assert first.stopped.mean() > 0.95
    again = simulate(both, FLEET, truth, rules=strategy, rollouts=200)
    assert np.array_equal(first.exposed, again.exposed)


@pytest.mark.parametrize(
    ("parts", "least_hours"),
    [
        ({"window": {"cron": "0 2 * * *", "minutes": 60}}, 14),
        ({"soak_seconds": 7200, "waves": [1, "100%"]}, 4),
        ({"rate": {"per_minute": 1, "factor": 1}, "waves": ["100%"], "paced": False}, 0.9),
    ],
)
def test_conditions_lengthen_it(parts: dict[str, Any], least_hours: float) -> None:
    """A window at night, soaks, a rate of one a minute."""
    free = played(60, 0.0, soak_seconds=0)
    held = played(60, 0.0, **{"soak_seconds": 0, **parts})
    assert np.median(held.seconds) / 3600 > least_hours
    assert np.median(free.seconds) < np.median(held.seconds)


def test_a_site_budget_takes_days_and_devices_that_are_away_their_time_out() -> None:
    """Ten devices a day of sixty."""
    budget = played(60, 0.0, labels={"site": "pier"}, budgets={"site_bytes_per_day": 8000})
    assert np.median(budget.seconds) > 4 * 86_400
    away = played(60, 0.0, Fleet(NOON, away=0.5), delivery_timeout_s=7200)
    assert np.median(away.seconds) > 2 * 7200


def test_a_slower_or_less_accurate_version_is_caught_where_it_is_judged() -> None:
    """Nothing fails, but devices become slower or lose right answers; what is tolerated is rarely stopped."""
    labelled = rules(trial={"min_labelled": 20}, waves=["20%", "100%"])

    def stopped(truth: Truth, strategy: Strategy = labelled, **more: Any) -> Simulated:
        return simulate(made(200, strategy, **more), FLEET, truth, rules=strategy, rollouts=300)

    assert stopped(Truth(latency=1.0)).stopped.mean() > 0.9
    assert stopped(Truth(accuracy=0.4)).stopped.mean() > 0.9
    assert stopped(Truth(latency=1.0)).exposed.mean() < 200
    tolerated = labelled.tolerances()
    for just in (Truth(latency=tolerated["latency"]), Truth(accuracy=tolerated["accuracy"])):
        assert stopped(just).stopped.mean() <= labelled.alpha
    unlabelled = rules()
    assert stopped(Truth(accuracy=0.4), unlabelled).stopped.mean() == 0
    assert stopped(Truth(latency=1.0), installed="").stopped.mean() == 0, "nothing to compare with"


def with_(truth: Truth, size: int = 200, fleet: Fleet = FLEET, **parts: Any) -> Simulated:
    """Three hundred rollouts of a version of which this is true."""
    strategy = rules(**{"waves": ["20%", "100%"], "soak_seconds": 0, **parts})
    return simulate(made(size, strategy), fleet, truth, rules=strategy, rollouts=300)


def test_devices_held_back_tell_a_season_from_a_slow_version() -> None:
    """A hot week slows everything by half: without them a good version is stopped for it, beside them it is not."""
    season = Truth(season={"latency": 0.5})
    assert with_(season).stopped.mean() > 0.9
    beside = with_(season, who={"hold_back": "20%"})
    assert beside.stopped.mean() <= 0.05
    assert beside.held.mean() > 0.9, "each device against itself before asks a person"
    slow = with_(Truth(latency=0.9, season={"latency": 0.05}), who={"hold_back": "20%"})
    assert slow.stopped.mean() > 0.9


def test_held_back_devices_are_shared_out_as_the_engine_does() -> None:
    """Each once, over all waves and both targets, in blocks that hold every device once."""
    strategy = rules(waves=["10%", "50%", "100%"], who={"hold_back": "10%"})
    both = plan([Candidate(f"d{n}", f"pi-{4 + n % 2}") for n in range(200)], OFFERS, strategy, "s")
    found = list(imagined.blocks(both))
    assert sum(both.held_targets.values()) == len(both.held_back) == len(found) == 20
    assert sorted(place for block in found for place in block) == list(range(both.devices))
    assert {len({both.shares[place].target for place in block}) for block in found} == {1}


def test_a_model_that_is_less_sure_of_its_answers_is_held_and_not_stopped() -> None:
    """Nobody labels anything; a person is asked, once, and takes the time that people take."""
    found = with_(Truth(confidence=0.6), waves=["20%", "60%", "100%"])
    assert found.stopped.mean() == 0
    assert found.held.mean() > 0.95
    quick = with_(Truth(confidence=0.6), fleet=replace(FLEET, answer_s=0.0), waves=["20%", "60%", "100%"])
    hours = np.median(found.seconds - quick.seconds) / 3600
    assert 2 < hours < 8, "half answer within four hours"


def test_approvals_and_owners_take_their_time() -> None:
    """Before the start, and between three waves; owners answer beside each other and beside the others' deliveries."""
    at_once = replace(FLEET, answer_s=0.0)

    def hours(fleet: Fleet = FLEET, **parts: Any) -> float:
        found = with_(Truth(), 60, fleet, waves=["20%", "60%", "100%"], **parts)
        return float(found.seconds.mean()) / 3600

    usual = hours()
    mean = 4 / np.log(2)
    assert hours(require_approval=True) - usual == pytest.approx(mean, rel=0.25)
    assert hours(approve_waves=True) - usual == pytest.approx(2 * mean, rel=0.25)
    assert hours(at_once, approve_waves=True, require_approval=True) == pytest.approx(usual, rel=0.25)
    one = played(60, 0.0, labels={"consent": "ask"}, waves=["100%"], soak_seconds=0)
    assert 5 * mean > np.median(one.seconds) / 3600 > 3 * mean, "the last of sixty"
    limit = played(60, 0.0, labels={"consent": "ask"}, waves=["100%"], step_timeouts={"consent": 3600})
    assert np.median(limit.seconds) / 3600 < 2


def test_what_fails_for_a_reason_that_passes_is_tried_again() -> None:
    """Three tries in ten fail: tried once, the rollout is stopped; tried five times, it takes longer and goes through."""
    flaky = replace(FLEET, flaky=0.3)
    once, again = (
        with_(Truth(), fleet=flaky, retry={"attempts": attempts, "first_wait_s": 600}) for attempts in (1, 5)
    )
    assert once.stopped.mean() > 0.95
    assert again.stopped.mean() < 0.05
    assert np.median(again.seconds) > np.median(with_(Truth()).seconds) + 1200
    uninstallable = with_(Truth(1.0, own_verdict=False), 6, retry={"attempts": 3, "first_wait_s": 3600})
    assert uninstallable.seconds.min() > 2 * 3600
    assert (uninstallable.held | uninstallable.stopped).all()


def test_what_is_taken_for_granted_is_said() -> None:
    strategy = rules(who={"hold_back": "20%"}, retry={"attempts": 3})
    said = assumptions(
        made(50, strategy, consent="ask"), replace(FLEET, flaky=0.1, away=0.2), Truth(latency=0.5), strategy
    )
    assert said == [
        "A delivery takes 100 s on pi-4 in the middle.",
        "Half of the people who are asked answer within 4 hours, and say yes; 40 of 40 devices ask their owner.",
        "20% of devices are away when they are asked.",
        "10.0% of tries fail for a reason that passes; there are 3 in all.",
        "Devices differ in latency by 0.1 (standard deviation).",
        "10 devices are held back and compared with.",
    ]


def test_the_forecast_says_how_sure_a_slower_version_is_caught_and_what_is_not_looked_at() -> None:
    """A line for each size; what no gate judges is said in words."""
    labelled = rules(trial={"min_labelled": 20})
    sure = forecast(made(150, labelled), FLEET, labelled)
    blind = forecast(made(40, rules(), installed=""), FLEET, rules(tolerated={"latency": None}))
    assert sure is not None
    assert blind is not None
    assert [line.words for line in sure.regressions] == [
        *("37.5% slower", "50% slower", "100% slower"),
        *("7.5 points less accurate", "10 points less accurate", "20 points less accurate"),
    ]
    assert sure.regressions[2].stopped > 0.7
    assert (sure.unjudged, blind.regressions) == ("", [])
    assert blind.unjudged == (
        "A slower version is not noticed: `tolerated.latency` is empty. "
        "A loss of accuracy is not noticed: the trial expects no labels. "
        "40 of 40 devices run nothing that latency and accuracy could be compared with."
    )


def test_versions_on_the_way_cost_time_and_days_of_the_budget() -> None:
    """Two installations, of which the budget of a device allows one a day."""
    strategy = rules(waves=["100%"], soak_seconds=0)
    budgeted = rules(waves=["100%"], soak_seconds=0, budgets={"device_bytes_per_day": 1000})

    def median(strategy: Strategy, **who: Any) -> float:
        every = strategy.model_copy(update={"who": strategy.who.model_copy(update=who)})
        devices = [Candidate(f"d{n}", "pi-4", version=1) for n in range(5)]
        plan_ = plan(devices, OFFERS, every, "s", {2: {"pi-4": [Offer(9, "e" * 64, 900, 700)]}})
        return float(np.median(simulate(plan_, FLEET, Truth(), rules=every, rollouts=200).seconds))

    straight, by_way = median(strategy), median(strategy, must_pass_through=[2])
    assert 1.5 < by_way / straight < 2.5
    assert median(budgeted, must_pass_through=[2]) > 86_400 > median(budgeted)


def test_a_small_fleet_is_warned_in_words_and_a_large_one_is_not() -> None:
    """Power, and the smallest rate that is caught."""
    small = forecast(made(6, rules()), FLEET, rules())
    large = forecast(made(400, rules()), FLEET, rules())
    assert small is not None
    assert large is not None
    assert (
        "These waves cannot reliably catch a version that fails on 10% of devices: 6 devices" in small.warning
    )
    assert "only 50% or more would be" in small.warning
    assert (large.warning, large.false_stops <= 0.05) == ("", True)
    assert "is stopped in" in large.sentence
    assert "hours" in large.sentence or "minutes" in large.sentence
    stopped = [line.stopped for line in large.power]
    assert stopped == sorted(stopped), "the worse, the surer"
    assert forecast(Plan(), FLEET, rules()) is None


def test_a_fleet_that_cannot_notice_a_slower_version_is_told() -> None:
    """Twelve devices are too few, two hundred are not."""
    strategy, found = rules(), []
    for size in (12, 200):
        devices = [Candidate(f"d{n}", "pi-4", installed="0" * 64) for n in range(size)]
        found.append(forecast(plan(devices, OFFERS, strategy, "s"), FLEET, strategy))
    few, many = (each.warning if each else "" for each in found)
    assert "A version that is 100% slower would be stopped in only 0% of rollouts." in few
    assert "slower" not in many


def test_a_plan_that_outlasts_the_patience_of_its_waves_is_warned() -> None:
    """Sixty devices of one site, one a day."""
    slow = rules(waves=["100%"], budgets={"site_bytes_per_day": 1000})
    devices = [Candidate(f"d{n}", "pi-4", facts={"site": "pier"}) for n in range(60)]
    found = forecast(plan(devices, OFFERS, slow, "s"), FLEET, slow)
    assert found is not None
    assert "who waits for 30 days in a wave is given up" in found.warning


def test_planning_gates_and_simulation_need_no_database() -> None:
    """They are plain functions, for a notebook as well."""
    alone = "from fleet.rollouts import forecast, gates, planning, simulation; import sys; print('django.db' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    found = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, env=environment)
    assert (found.stdout, found.stderr) == ("False\n", "")


def test_bins_of_whole_numbers_lose_nothing_and_hold_no_fractions():
    rng = np.random.default_rng(0)
    for most in (1, 7, 20, 21, 1000):
        values = rng.integers(1, most + 1, 500)
        bins = histogram(values)
        assert len(bins) <= 20
        assert [n for _, _, n in bins] == [int(((values >= a) & (values <= b)).sum()) for a, b, _ in bins]
        assert sum(n for _, _, n in bins) == 500
