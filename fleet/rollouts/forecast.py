"""What is known before a start: hours, bytes, and which regression the gates of this plan can catch, in words."""

from dataclasses import dataclass, field

import numpy as np

from fleet.rollouts.planning import Plan
from fleet.rollouts.replay import Bits
from fleet.rollouts.simulation import CELLS, Fleet, Simulated, Truth, simulate
from fleet.rollouts.strategy import Strategy

ENOUGH = 0.8
RATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
# A dry run answers while a person waits: less is played than on the page of the simulation.
ROLLOUTS, DRY_CELLS = 1000, CELLS // 20


@dataclass(frozen=True)
class Power:
    """What happens to a version that fails on this share of devices."""

    failing: float
    stopped: float
    held: float
    exposed: float  # devices in the mean
    hours: float  # median, to the stop or to the end


@dataclass(frozen=True)
class Forecast:
    """The dry run's outlook."""

    hours_low: float
    hours: float
    hours_high: float
    false_stops: float
    power: list[Power] = field(default_factory=list)
    sentence: str = ""
    warning: str = ""
    n: int = 0

    @property
    def words(self) -> str:
        """The median duration."""
        return hours_in_words(self.hours)


def forecast(plan: Plan, fleet: Fleet, rules: Strategy, seed: int = 0) -> Forecast | None:
    """Played at the tolerated rate and at worse ones; None for a plan without devices."""
    if not plan.devices:
        return None
    rollouts = max(100, min(ROLLOUTS, DRY_CELLS // plan.devices))
    rates = sorted({rules.p0, rules.p1, *(rate for rate in RATES if rate > rules.p0)})
    played = {
        rate: simulate(plan, fleet, Truth(rate), rules=rules, rollouts=rollouts, seed=seed) for rate in rates
    }
    good = played[rules.p0]
    through = good.seconds[~good.stopped] if not good.stopped.all() else good.seconds
    low, middle, high = np.quantile(through, (0.1, 0.5, 0.9)) / 3600
    power = [power_of(rate, found) for rate, found in played.items()]
    return Forecast(
        round(float(low), 3),
        round(float(middle), 3),
        round(float(high), 3),
        share_of(good.stopped),
        power,
        _sentence(power, plan, rules),
        _warning(power, plan, rules),
        rollouts,
    )


def power_of(rate: float, found: Simulated) -> Power:
    """One line of the table."""
    return Power(
        rate,
        share_of(found.stopped),
        share_of(found.held & ~found.stopped),
        round(float(found.exposed.mean()), 2),
        round(float(np.median(found.seconds)) / 3600, 3),
    )


def share_of(which: Bits) -> float:
    """Share of rollouts."""
    return round(float(which.mean()), 4)


def hours_in_words(hours: float) -> str:
    """12 minutes, 3.5 hours, 2.1 days."""
    if hours < 1:
        return f"{max(1, round(hours * 60))} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def _sentence(power: list[Power], plan: Plan, rules: Strategy) -> str:
    line = next(each for each in power if each.failing == rules.p1)
    return (
        f"A version that fails on {rules.p1:.0%} of devices is stopped in {line.stopped:.0%} of rollouts, "
        f"typically within {hours_in_words(line.hours)} and after {line.exposed:.0f} of {plan.devices} devices."
    )


def _warning(power: list[Power], plan: Plan, rules: Strategy) -> str:
    """What these waves cannot catch, or '' when they catch what must not get through."""
    line = next(each for each in power if each.failing == rules.p1)
    if line.stopped >= ENOUGH:
        return ""
    caught = [each.failing for each in power if each.stopped >= ENOUGH]
    least = (
        f"only {min(caught):.0%} or more would be" if caught else "not even one that fails on all would be"
    )
    return (
        f"These waves cannot reliably catch a version that fails on {rules.p1:.0%} of devices: {plan.devices} devices "
        f"stop it in {line.stopped:.0%} of rollouts; {least}. Rely on the trial on each device, on hold, and on a person."
    )
