"""`tinyfleet rollouts`: who gets it, and when."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fleet.cli.client import Client
from fleet.cli.output import AsJson, Column, Row, ago, console, print_json, show
from fleet.cli.server import client

POLL_SECONDS = 0.5
GOOD_END = "succeeded"
ENDS = (GOOD_END, "rolled_back", "aborted")

rollouts = typer.Typer(no_args_is_help=True, help="Rollouts: a version to a group, in waves, on evidence.")

ROLLOUT: list[Column] = [
    ("rollout", "id"),
    ("model", "model"),
    ("version", "version"),
    ("group", "group"),
    ("app", "app"),
    ("state", "state"),
    ("reason", "reason"),
    ("created", ago("created_at")),
]
WAVE: list[Column] = [("wave", "number"), ("state", "state"), ("", "verdict.sentence")]
DELIVERY: list[Column] = [
    ("device", "device"),
    ("kind", "kind"),
    ("wave", "wave"),
    ("state", "state"),
    ("reason", "reason"),
    ("changed", ago("changed_at")),
]
LEFT_OUT: list[Column] = [("left out", "device"), ("because", "reason")]

ModelOption = Annotated[str, typer.Option("--model")]
VersionOption = Annotated[int, typer.Option("--version")]
GroupOption = Annotated[str, typer.Option("--group")]
WavesOption = Annotated[
    str, typer.Option("--waves", help="Devices asked after each wave, such as '1,25%,100%'.")
]
StrategyOption = Annotated[
    Path | None, typer.Option("--strategy", help="A JSON file with the whole strategy.")
]
NoteOption = Annotated[str, typer.Option("--note", help="Why; kept with the decision.")]


def order(
    model: str, version: int, group: str, app: str, waves: str, strategy: Path | None
) -> dict[str, Any]:
    """The body that plans or creates a rollout."""
    rules = read_rules(strategy)
    if waves:
        rules["waves"] = [_size(part.strip()) for part in waves.split(",")]
    return {"model": model, "version": version, "group": group, "app": app, "strategy": rules}


@rollouts.command("create")
def create(
    model: ModelOption,
    version: VersionOption,
    group: GroupOption,
    app: str = "main",
    waves: WavesOption = "",
    strategy: StrategyOption = None,
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    key: Annotated[str, typer.Option("--key", help="Asked for twice with one key, it is made once.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a rollout; it is a draft until it is started."""
    with client() as api:
        found = api.post("/rollouts", order(model, version, group, app, waves, strategy) | {"key": key})
        if start:
            found = api.post(f"/rollouts/{found['id']}/start")
    show(found, ROLLOUT, as_json)


@rollouts.command("list")
def list_rollouts(state: str | None = None, group: str | None = None, as_json: AsJson = False) -> None:
    """Show rollouts, newest first."""
    show(client().items("/rollouts", state=state, group=group), ROLLOUT, as_json, empty="no rollouts yet")


@rollouts.command("show")
def show_rollout(rollout: int, as_json: AsJson = False) -> None:
    """Show a rollout with its waves and deliveries."""
    with client() as api:
        found = api.get(f"/rollouts/{rollout}")
        deliveries = api.items(f"/rollouts/{rollout}/deliveries")
    if as_json:
        print_json({**found, "deliveries": deliveries})
        return
    show(found, ROLLOUT, as_json)
    show(found["waves"], WAVE, as_json, empty="no waves yet")
    show(deliveries, DELIVERY, as_json, empty="no deliveries yet")


@rollouts.command("abort")
def abort(
    rollout: int,
    revert: Annotated[bool, typer.Option("--revert", help="Devices that have it go back.")] = False,
    note: NoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Stop for good; devices that have the version keep it, unless --revert is given."""
    body = {"mode": "revert" if revert else "keep", "note": note}
    show(client().post(f"/rollouts/{rollout}/abort", body), ROLLOUT, as_json)


@rollouts.command("watch")
def watch(rollout: int, as_json: AsJson = False) -> None:
    """Watch a rollout to its end; exit code 1 unless it succeeds."""
    with client() as api:
        found = _watched(api, rollout, silent=as_json)
    show(found, ROLLOUT, as_json)
    if found["state"] != GOOD_END:
        raise typer.Exit(1)


@rollouts.command("roll-back")
def roll_back(
    rollout: int,
    device: Annotated[list[str] | None, typer.Option("--device", help="Only this one; repeatable.")] = None,
    wave: Annotated[int | None, typer.Option("--wave", help="Only devices of this wave.")] = None,
    target: Annotated[str, typer.Option("--target", help="Only devices of this target.")] = "",
    note: NoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Bring every device that was asked, or a part of them, back to what it ran before."""
    body = {"devices": device or [], "wave": wave, "target": target, "note": note}
    show(client().post(f"/rollouts/{rollout}/roll-back", body), ROLLOUT, as_json)


@rollouts.command("schedule")
def schedule(
    rollout: int,
    at: Annotated[str, typer.Option("--at", help="Such as 2027-01-31T02:00Z; without it, now.")] = "",
    note: NoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Start a draft at a time, or move the start of one that waits."""
    body = {"start_at": at or None, "note": note}
    show(client().post(f"/rollouts/{rollout}/schedule", body), ROLLOUT, as_json)


@rollouts.command("clone")
def clone(
    rollout: int,
    version: Annotated[int | None, typer.Option("--version", help="Another version of the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a draft like another rollout."""
    show(client().post(f"/rollouts/{rollout}/clone", {"version": version}), ROLLOUT, as_json)


@rollouts.command("advance")
def advance(
    rollout: int,
    wave: Annotated[
        int | None, typer.Option("--wave", help="The wave you saw; nothing happens when it passed.")
    ] = None,
    note: NoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Open the next wave now."""
    body = {"wave": wave, "note": note}
    show(client().post(f"/rollouts/{rollout}/advance", body), ROLLOUT, as_json)


@rollouts.command("consent")
def consent(
    rollout: int,
    device: str,
    answer: Annotated[str, typer.Argument(help="now, tonight or no.")],
    as_json: AsJson = False,
) -> None:
    """Keep what the owner of a device that asks has said."""
    body = {"answer": answer}
    show(client().post(f"/rollouts/{rollout}/devices/{device}/consent", body), DELIVERY, as_json)


def _steer(verb: str, words: str) -> Callable[..., None]:
    def steer(rollout: int, note: NoteOption = "", as_json: AsJson = False) -> None:
        show(client().post(f"/rollouts/{rollout}/{verb}", {"note": note}), ROLLOUT, as_json)

    steer.__doc__ = words
    return steer


for _verb, _words in {
    "start": "Start a draft, or ask for approval where its strategy wants one.",
    "approve": "Approve a rollout that waits for it.",
    "pause": "Ask no further devices for now.",
    "resume": "Go on after a pause.",
    "retry": "Ask devices again whose delivery failed or timed out.",
}.items():
    rollouts.command(_verb)(_steer(_verb, _words))


def _watched(api: Client, rollout: int, *, silent: bool) -> dict[str, Any]:
    said = ""
    while True:
        found: dict[str, Any] = api.get(f"/rollouts/{rollout}")
        line = status_line(found)
        if line != said and not silent:
            console.print(Text(line))
        said = line
        if found["state"] in ENDS:
            return found
        time.sleep(POLL_SECONDS)


def status_line(rollout: Row) -> str:
    """Where a rollout stands, in one line."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(rollout["counts"].items()))
    wave = next((wave for wave in rollout["waves"] if wave["state"] not in ("passed", "pending")), None)
    where = f"wave {wave['number']} {wave['state']}" if wave else ""
    parts = (str(rollout["state"]), where, counts, str(rollout["reason"] or ""))
    return ": ".join(part for part in parts if part)


def read_rules(file: Path | None) -> dict[str, Any]:
    """A JSON object in a file; nothing without a file."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file} cannot be read as JSON: {error}", param_hint="file") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file} is not a JSON object", param_hint="file")
    return found


def _size(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
