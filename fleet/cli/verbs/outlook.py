"""`tinyfleet rollouts plan` and `simulate`: what a rollout would do, before it starts."""

from typing import Annotated, Any

import typer
from rich.text import Text

from fleet.cli.output import AsJson, Column, Row, bytes_text, console, print_json, show
from fleet.cli.server import client
from fleet.cli.verbs.rollouts import (
    LEFT_OUT,
    GroupOption,
    ModelOption,
    StrategyOption,
    VersionOption,
    WavesOption,
    order,
)

PLANNED: list[Column] = [("wave", "wave"), ("devices", "devices"), ("over the air", "bytes")]
WHY: list[Column] = [("device", "device"), ("artifact", "artifact"), ("gate by gate", "why")]
CATCHES: list[Column] = [
    ("a version that", "what"),
    ("is stopped in", "stopped"),
    ("after devices", "exposed"),
    ("and hours", "hours"),
]
SPREADS: list[Column] = [("", "name"), ("1 in 10 below", "q10"), ("half", "q50"), ("1 in 10 above", "q90")]


def plan(
    model: ModelOption,
    version: VersionOption,
    group: GroupOption,
    app: str = "main",
    waves: WavesOption = "",
    strategy: StrategyOption = None,
    why: Annotated[bool, typer.Option("--why", help="Say why each device gets its artifact.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a rollout would do now: its waves, who is left out and why, and what its gates can catch."""
    found = client().post("/rollouts/plan", order(model, version, group, app, waves, strategy))
    if as_json:
        print_json(found)
        return
    show([_planned(number, shares) for number, shares in enumerate(found["waves"], 1)], PLANNED, as_json)
    if why:
        shares = [share for wave in found["waves"] for share in wave]
        show([{**share, "why": _gates(share)} for share in shares], WHY, as_json)
    show(found["left_out"], LEFT_OUT, as_json, empty="nobody is left out")
    console.print(Text(found["evidence"]))
    if found["forecast"]:
        _say_forecast(found["forecast"])


def simulate(
    model: ModelOption,
    version: VersionOption,
    group: GroupOption,
    app: str = "main",
    waves: WavesOption = "",
    strategy: StrategyOption = None,
    failing: Annotated[float, typer.Option("--failing", help="Share of devices on which it fails.")] = 0.1,
    latency: Annotated[float, typer.Option("--latency", help="0.5 is half as slow again.")] = 0.0,
    accuracy: Annotated[float, typer.Option("--accuracy", help="Share of right answers that is lost.")] = 0.0,
    confidence: Annotated[float, typer.Option("--confidence", help="Fall of the mean confidence.")] = 0.0,
    class_mix: Annotated[float, typer.Option("--class-mix", help="Change of the mix of answers.")] = 0.0,
    season: Annotated[
        list[str] | None,
        typer.Option("--season", help="What changes on every device meanwhile, such as latency=0.3."),
    ] = None,
    answer_hours: Annotated[
        float, typer.Option("--answer-hours", help="Half of the people who are asked have answered by then.")
    ] = 4.0,
    times: Annotated[int, typer.Option("--rollouts", help="How often it is played.")] = 2000,
    as_json: AsJson = False,
) -> None:
    """Play a rollout of a version as bad as you say thousands of times on your devices; nothing is sent."""
    truth: dict[str, Any] = {"failing": failing, "latency": latency, "accuracy": accuracy, "rollouts": times}
    truth |= {"confidence": confidence, "class_mix": class_mix, "answer_hours": answer_hours}
    truth["season"] = _numbers(season or [])
    body = order(model, version, group, app, waves, strategy) | truth
    found = client().post("/rollouts/simulate", body)
    if as_json:
        print_json(found)
        return
    console.print(Text(f"{found['n']} rollouts to {found['devices']} devices"))
    for what in ("stopped", "held", "missed"):
        console.print(Text(f"  {what:8} {_percent(found[what])}"))
    console.print(Text(f"  a good version is stopped in {_percent(found['false_stops'])}"))
    show([_spread(name, found[name]) for name in ("exposed", "hours", "bytes")], SPREADS, as_json)
    for sentence in (found["unjudged"], *found["assumed"]):
        if sentence:
            console.print(Text(sentence))


def _numbers(texts: list[str]) -> dict[str, float]:
    """`name=number` options as a mapping; a usage error names the one that is not."""
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise typer.BadParameter(f"'{text}' is not name=number", param_hint="--season") from None
    return found


def _say_forecast(found: Row) -> None:
    console.print(
        Text(f"A good version takes {found['hours']:.1f} hours in half of {found['n']} simulations.")
    )
    lines = [{**line, "what": f"fails on {_percent(line['failing'])}"} for line in found["power"]]
    lines += [{**line, "what": f"is {line['words']}"} for line in found["regressions"]]
    show([{**line, "stopped": _percent(line["stopped"])} for line in lines], CATCHES, False)
    for sentence in (found["sentence"], found["unjudged"], found["warning"], *found["assumed"]):
        if sentence:
            console.print(Text(sentence))


def _planned(number: int, shares: list[Row]) -> Row:
    sent = sum(share["transport_bytes"] for share in shares)
    return {"wave": number, "devices": [share["device"] for share in shares], "bytes": bytes_text(sent)}


def _gates(share: Row) -> str:
    return "; ".join(f"{gate['gate']}: {gate['sentence']}" for gate in share["why"])


def _spread(name: str, found: Row) -> dict[str, Any]:
    return {"name": name, **{q: f"{found[q]:.3g}" for q in ("q10", "q50", "q90")}}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
