"""What is known before a start: hours, bytes, and which regression the gates of this plan can catch, in words."""

from dataclasses import dataclass, field

import numpy as np

from fleet.rollouts.conditions import A_MONTH
from fleet.rollouts.imagined import Fleet, Truth
from fleet.rollouts.mixture import Bits
from fleet.rollouts.planning import Plan
from fleet.rollouts.simulation import CELLS, Simulated, assumptions, simulate
from fleet.rollouts.strategy import Strategy

ENOUGH = 0.8
RATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
# A dry run answers while a person waits: less is played than on the page of the simulation.
ROLLOUTS, DRY_CELLS = 1000, CELLS // 20


# Regressions of measured signals, as multiples of what is tolerated.
SIZES = (1.5, 2.0, 4.0)


@dataclass(frozen=True)
class Power:
    """What happens to a version that fails on this share of devices."""

    failing: float
    stopped: float
    held: float
    exposed: float  # devices in the mean
    hours: float  # median, to the stop; to the end where none is stopped


@dataclass(frozen=True)
class Regression:
    """What happens to a version that never fails, but is slower or less accurate by so much."""

    signal: str
    size: float
    stopped: float
    exposed: float
    hours: float

    @property
    def words(self) -> str:
        """50 % slower, 10 points less accurate."""
        return regression_in_words(self.signal, self.size)


@dataclass(frozen=True)
class Forecast:
    """The dry run's outlook."""

    hours_low: float
    hours: float
    hours_high: float
    false_stops: float
    power: list[Power] = field(default_factory=list)
    regressions: list[Regression] = field(default_factory=list)
    unjudged: str = ""
    sentence: str = ""
    warning: str = ""
    n: int = 0
    assumed: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The median duration."""
        return hours_in_words(self.hours)


def forecast(plan: Plan, fleet: Fleet, rules: Strategy, seed: int = 0) -> Forecast | None:
    """Played at the tolerated rate and at worse ones, and with a slower or less accurate version; None without devices."""
    if not plan.devices:
        return None
    rollouts = max(100, min(ROLLOUTS, DRY_CELLS // plan.devices))

    def play(truth: Truth) -> Simulated:
        return simulate(plan, fleet, truth, rules=rules, rollouts=rollouts, seed=seed)

    rates = sorted({rules.p0, rules.p1, *(rate for rate in RATES if rate > rules.p0)})
    played = {rate: play(Truth(rate)) for rate in rates}
    good = played[rules.p0]
    through = good.seconds[~good.stopped] if not good.stopped.all() else good.seconds
    low, middle, high = np.quantile(through, (0.1, 0.5, 0.9)) / 3600
    power = [power_of(rate, found) for rate, found in played.items()]
    regressions = [regression_of(name, size, play(_worse(name, size))) for name, size in _sizes(rules)]
    return Forecast(
        round(float(low), 3),
        round(float(middle), 3),
        round(float(high), 3),
        share_of(good.stopped),
        power,
        regressions,
        unjudged(plan, rules),
        _sentence(power, plan, rules),
        " ".join(
            filter(None, [_warning(power, plan, rules), *_unseen(regressions, plan), _too_slow(float(high))])
        ),
        rollouts,
        assumptions(plan, fleet, Truth(), rules),
    )


def power_of(rate: float, found: Simulated) -> Power:
    """One line of the table."""
    return Power(
        rate,
        share_of(found.stopped),
        share_of(found.held & ~found.stopped),
        round(float(found.exposed.mean()), 2),
        _hours(found),
    )


def regression_of(signal: str, size: float, found: Simulated) -> Regression:
    """One line of the table of measured regressions."""
    exposed = round(float(found.exposed.mean()), 2)
    return Regression(signal, size, share_of(found.stopped), exposed, _hours(found))


def regression_in_words(signal: str, size: float) -> str:
    """What a regression is called in a sentence."""
    return {
        "latency": f"{size * 100:.3g}% slower",
        "accuracy": f"{size * 100:.3g} points less accurate",
        "confidence": f"{size * 100:.3g} points less sure of its answers",
        "class_mix": f"of another mix of answers by {size * 100:.3g} points",
    }[signal]


def unjudged(plan: Plan, rules: Strategy) -> str:
    """What no gate of this plan looks at, in words."""
    judged = rules.tolerances()
    found = []
    if "latency" not in judged:
        found.append("A slower version is not noticed: `tolerated.latency` is empty.")
    if "accuracy" not in judged:
        why = "`tolerated.accuracy` is empty" if rules.trial.min_labelled else "the trial expects no labels"
        found.append(f"A loss of accuracy is not noticed: {why}.")
    alone = sum(not share.compares for share in plan.shares)
    if alone:
        found.append(
            f"{alone} of {plan.devices} devices run nothing that latency and accuracy could be compared with."
        )
    return " ".join(found)


def _sizes(rules: Strategy) -> list[tuple[str, float]]:
    """Signals that are judged, and how much worse a version may be imagined."""
    judged = rules.tolerances()
    named = [(name, judged[name]) for name in ("latency", "accuracy") if name in judged]
    return [(name, round(size * limit, 4)) for name, limit in named for size in SIZES if size * limit <= 1]


def _worse(signal: str, size: float) -> Truth:
    return Truth(latency=size) if signal == "latency" else Truth(accuracy=size)


def _hours(found: Simulated) -> float:
    """Half of the rollouts that were stopped took less; of all, where none was."""
    seconds = found.seconds[found.stopped] if found.stopped.any() else found.seconds
    return round(float(np.median(seconds)) / 3600, 3)


def share_of(which: Bits) -> float:
    """Share of rollouts."""
    return round(float(which.mean()), 4)


def hours_in_words(hours: float) -> str:
    """12 minutes, 3.5 hours, 2.1 days."""
    if hours < 1:
        minutes = max(1, round(hours * 60))
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def _sentence(power: list[Power], plan: Plan, rules: Strategy) -> str:
    line = next(each for each in power if each.failing == rules.p1)
    return (
        f"A version that fails on {rules.p1:.0%} of devices is stopped in {line.stopped:.0%} of rollouts, "
        f"typically within {hours_in_words(line.hours)} and after {line.exposed:.0f} of {plan.devices} devices."
    )


def _too_slow(hours: float) -> str:
    """A warning where windows, rates or budgets make devices wait for longer than they may."""
    if hours * 3600 <= A_MONTH.total_seconds():
        return ""
    return f"This takes up to {hours_in_words(hours)}, and who waits for {A_MONTH.days} days in a wave is given up."


def _unseen(regressions: list[Regression], plan: Plan) -> list[str]:
    """A warning for each judged signal of which not even the largest regression that was played is caught."""
    if not any(share.compares for share in plan.shares):
        return []  # `unjudged` says why
    largest = {each.signal: each for each in regressions}
    return [
        f"A version that is {each.words} would be stopped in only {each.stopped:.0%} of rollouts."
        for each in largest.values()
        if each.stopped < ENOUGH
    ]


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
