"""REST: dry runs and simulations of rollouts that do not exist yet."""

from dataclasses import fields, replace
from typing import Annotated, Any, Literal

import numpy as np
from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Router, Schema

from fleet.rollouts import experience, forecast, imagined, services, simulation, strategy
from fleet.rollouts.api import GateOut, LeftOutOut, OrderIn, caller, named

router = Router(tags=["rollouts"])


class ShareOut(Schema):
    """One device's part of a plan."""

    device: str
    target: str
    artifact: int
    transport_bytes: int
    site: str
    zone: str
    asks: bool
    hops: list[int]
    takes_from: str
    why: list[GateOut]


class PowerOut(Schema):
    """What happens to a version that fails on this share of devices."""

    failing: float
    stopped: float
    held: float
    exposed: float
    hours: float


class RegressionOut(Schema):
    """What happens to a version that is slower (0.5: by half) or less accurate (0.1: by ten points)."""

    signal: str
    size: float
    stopped: float
    exposed: float
    hours: float
    words: str


class ForecastOut(Schema):
    """Hours from start to end (10 %, half and 90 % of simulated rollouts), and what the gates can catch."""

    hours_low: float
    hours: float
    hours_high: float
    false_stops: float
    power: list[PowerOut]
    regressions: list[RegressionOut]
    unjudged: str
    sentence: str
    warning: str
    n: int
    assumed: list[str]


class PlanOut(Schema):
    """The dry run."""

    devices: int
    transport_bytes: int
    waves: list[list[ShareOut]]
    left_out: list[LeftOutOut]
    held_back: list[str]
    evidence: str
    forecast: ForecastOut | None


Moving = Literal["latency", "accuracy", "confidence", "class_mix"]


class SimulationIn(OrderIn):
    """What is true of the version, and how often it is played."""

    failing: Annotated[float, Field(ge=0, le=1, description="Share of devices on which it fails.")] = 0.0
    by_target: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], Field(max_length=100)] = {}
    own_verdict: Annotated[
        bool, Field(description="The trial on the device finds it worse; otherwise it cannot be installed.")
    ] = True
    latency: Annotated[
        float,
        Field(ge=0, le=1, description="Relative rise of the median latency: 0.5 is half as slow again."),
    ] = 0.0
    accuracy: Annotated[float, Field(ge=0, le=1, description="Share of right answers that is lost.")] = 0.0
    confidence: Annotated[float, Field(ge=0, le=1, description="Fall of the mean confidence.")] = 0.0
    class_mix: Annotated[
        float, Field(ge=0, le=1, description="Change of the mix of answers, as total variation.")
    ] = 0.0
    season: Annotated[
        dict[Moving, Annotated[float, Field(ge=-1, le=1)]],
        Field(description="What changes on every device meanwhile, whatever it runs, by signal."),
    ] = {}
    answer_hours: Annotated[
        float, Field(ge=0, le=720, description="Half of the people who are asked have answered by then.")
    ] = imagined.USUAL_ANSWER_S / 3600
    flaky: Annotated[
        float | None,
        Field(ge=0, lt=1, description="Share of tries that fail for a reason that passes; null: as before."),
    ] = None
    rollouts: Annotated[int, Field(ge=1, le=simulation.MOST_ROLLOUTS)] = 2000
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class BinOut(Schema):
    """How many simulated rollouts lie between two values."""

    low: float
    high: float
    n: int


class SpreadOut(Schema):
    """A distribution: three quantiles and its histogram."""

    q10: float
    q50: float
    q90: float
    histogram: list[BinOut]


class SimulationOut(Schema):
    """What became of the simulated rollouts."""

    n: int
    devices: int
    failing: float
    latency: float
    accuracy: float
    stopped: float
    held: float
    missed: Annotated[float, Field(description="Share that went to everybody, with nobody asked on the way.")]
    false_stops: Annotated[float, Field(description="Share of rollouts of a good version that is stopped.")]
    unjudged: Annotated[str, Field(description="What no gate of the strategy looks at.")]
    assumed: Annotated[list[str], Field(description="What is taken for granted about devices and people.")]
    exposed: SpreadOut
    hours: SpreadOut
    bytes: SpreadOut


@router.post("/rollouts/plan", response=PlanOut)
def plan(request: HttpRequest, payload: OrderIn) -> dict[str, Any]:
    """The dry run: waves, who is left out and why, how long it takes, and what this fleet can show."""
    made = services.preview(caller(request), **named(payload))
    found = experience.outlook(made, strategy.read(payload.strategy), timezone.now())
    shown = ("devices", "transport_bytes", "waves", "left_out", "held_back", "evidence")
    return {name: getattr(made, name) for name in shown} | {"forecast": found}


@router.post("/rollouts/simulate", response=SimulationOut)
def simulate(request: HttpRequest, payload: SimulationIn) -> dict[str, Any]:
    """Play the plan again and again on the real inventory, with a version as bad as stated, and with a good one."""
    made = services.preview(caller(request), **named(payload))
    rules = strategy.read(payload.strategy)
    fleet = replace(experience.fleet_of(made, timezone.now()), answer_s=payload.answer_hours * 3600)
    if payload.flaky is not None:
        fleet = replace(fleet, flaky=payload.flaky)
    truth = imagined.Truth(**{each.name: getattr(payload, each.name) for each in fields(imagined.Truth)})
    found, good = (
        simulation.simulate(made, fleet, each, rules=rules, rollouts=payload.rollouts, seed=payload.seed)
        for each in (truth, imagined.Truth(rules.p0, season=truth.season))
    )
    return {
        "n": found.n,
        "devices": made.devices,
        "failing": payload.failing,
        "latency": payload.latency,
        "accuracy": payload.accuracy,
        "stopped": forecast.share_of(found.stopped),
        "held": forecast.share_of(found.held & ~found.stopped),
        "missed": found.missed,
        "false_stops": forecast.share_of(good.stopped),
        "unjudged": forecast.unjudged(made, rules),
        "assumed": simulation.assumptions(made, fleet, truth, rules),
        "exposed": spread(found.exposed),
        "hours": spread(found.seconds / 3600),
        "bytes": spread(found.bytes),
    }


def spread(values: Any) -> dict[str, Any]:
    """A distribution in numbers."""
    low, middle, high = (float(q) for q in np.quantile(values, (0.1, 0.5, 0.9)))
    bins = [{"low": a, "high": b, "n": n} for a, b, n in simulation.histogram(values)]
    return {"q10": low, "q50": middle, "q90": high, "histogram": bins}
