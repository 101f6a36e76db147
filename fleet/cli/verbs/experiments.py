"""`tinyfleet experiments`: two versions on random halves of a group."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fleet.cli.output import AsJson, Column, ago, console, print_json, show
from fleet.cli.server import client
from fleet.cli.verbs.rollouts import (
    LEFT_OUT,
    GroupOption,
    ModelOption,
    NoteOption,
    StrategyOption,
    read_rules,
)

experiments = typer.Typer(
    no_args_is_help=True, help="Experiments: two versions on random halves, until one is shown to be better."
)

EXPERIMENT: list[Column] = [
    ("experiment", "id"),
    ("model", "model"),
    ("a", "version_a"),
    ("b", "version_b"),
    ("group", "group"),
    ("state", "state"),
    ("reason", "reason"),
    ("created", ago("created_at")),
]
PAIR: list[Column] = [
    ("pair", "number"),
    ("a", "device_a"),
    ("b", "device_b"),
    ("state", "state"),
    ("on a", "value_a"),
    ("on b", "value_b"),
    ("reason", "reason"),
]

AOption = Annotated[int, typer.Option("--a", help="Number of the one version.")]
BOption = Annotated[int, typer.Option("--b", help="Number of the other.")]
MetricOption = Annotated[str, typer.Option("--metric", help="accuracy, latency or errors.")]
TermsOption = Annotated[Path | None, typer.Option("--terms", help="A JSON file with all terms.")]


@experiments.command("create")
def create(
    model: ModelOption,
    a: AOption,
    b: BOption,
    group: GroupOption,
    app: str = "main",
    metric: MetricOption = "",
    promote_winner: Annotated[
        bool, typer.Option("--promote-winner", help="The better one goes to everybody by itself.")
    ] = False,
    terms: TermsOption = None,
    strategy: StrategyOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it could show.")] = False,
    as_json: AsJson = False,
) -> None:
    """Divide a group into random halves, and give each its version."""
    wanted = read_rules(terms)
    wanted |= {"metric": metric} if metric else {}
    wanted |= {"promote": "winner"} if promote_winner else {}
    body: dict[str, Any] = {"model": model, "version_a": a, "version_b": b, "group": group, "app": app}
    body |= {"terms": wanted, "strategy": read_rules(strategy)}
    found = client().post("/experiments/plan" if dry_run else "/experiments", body)
    if not dry_run:
        show(found, EXPERIMENT, as_json)
    elif as_json:
        print_json(found)
    else:
        show(found["left_out"], LEFT_OUT, as_json, empty="nobody is left out")
        console.print(Text(found["sentence"]))


@experiments.command("list")
def list_experiments(state: str | None = None, as_json: AsJson = False) -> None:
    """Show experiments, newest first."""
    show(client().items("/experiments", state=state), EXPERIMENT, as_json, empty="no experiments yet")


@experiments.command("show")
def show_experiment(experiment: int, as_json: AsJson = False) -> None:
    """Show an experiment with its pairs."""
    with client() as api:
        found = api.get(f"/experiments/{experiment}")
        pairs = api.items(f"/experiments/{experiment}/pairs")
    if as_json:
        print_json({**found, "each_pair": pairs})
        return
    show(found, EXPERIMENT, as_json)
    show(pairs, PAIR, as_json)
    console.print(Text(json.dumps(found["finding"])))


@experiments.command("promote")
def promote(
    experiment: int,
    side: Annotated[str, typer.Argument(help="a or b")],
    note: NoteOption = "",
    as_json: AsJson = False,
) -> None:
    """Bring one version to the whole group."""
    body = {"side": side, "note": note}
    show(client().post(f"/experiments/{experiment}/promote", body), EXPERIMENT, as_json)


@experiments.command("stop")
def stop(
    experiment: int,
    revert: Annotated[bool, typer.Option("--revert", help="Both halves go back.")] = False,
    note: NoteOption = "",
    as_json: AsJson = False,
) -> None:
    """End it without a winner; each half keeps what it has, unless --revert is given."""
    body = {"mode": "revert" if revert else "keep", "note": note}
    show(client().post(f"/experiments/{experiment}/stop", body), EXPERIMENT, as_json)
