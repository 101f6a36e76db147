"""The table of all commands, and how an error becomes one line and an exit code."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from fleet.cli import server
from fleet.cli.client import ApiError
from fleet.cli.supervisor import StartError
from fleet.cli.up import demo, up
from fleet.cli.verbs import boards, devices, experiments, jobs, models, outlook, records, rollouts, telemetry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tinyfleet: compress a model to a fleet's budgets, roll it out on evidence, watch it in the field.",
)
for _name, _group in {
    "models": models.models,
    "versions": models.versions,
    "datasets": models.datasets,
    "targets": models.targets,
    "artifacts": models.artifacts,
    "jobs": jobs.jobs,
    "device": boards.boards,
    "devices": devices.devices,
    "groups": devices.groups,
    "rollouts": rollouts.rollouts,
    "hooks": records.hooks,
    "experiments": experiments.experiments,
    "telemetry": telemetry.telemetry,
}.items():
    app.add_typer(_group, name=_name)
rollouts.rollouts.command("plan")(outlook.plan)
rollouts.rollouts.command("simulate")(outlook.simulate)
_VERBS: dict[str, Callable[..., None]] = {
    "up": up,
    "demo": demo,
    "login": telemetry.login,
    "me": telemetry.me,
    "health": telemetry.health,
    "alerts": telemetry.alerts,
    "history": records.history,
    "enrol-token": devices.enrol_token,
}
for _name, _function in _VERBS.items():
    app.command(_name)(_function)


def _version(wanted: bool) -> None:
    if wanted:
        print(version("tinyfleet"))
        raise typer.Exit


@app.callback()
def choose(
    url: Annotated[
        str, typer.Option(help="Address of the server; else TINYFLEET_URL, or a stack on ./var.")
    ] = "",
    token: Annotated[str, typer.Option(help="API token; else TINYFLEET_TOKEN, or the stack's own.")] = "",
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before every command."""
    server.chosen = server.Choice(url, token)


def run() -> int:
    """Run one command; returns 1 when the server refuses, 2 when it could not even be asked to start."""
    try:
        app()
    except ApiError as error:
        complain(str(error), error.problems)
        return 1
    except StartError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `tinyfleet ... | head` has seen enough; Python must not complain about it while it ends.
        sys.stderr.close()
        return 1
    return 0


def complain(message: str, problems: list[str] | None = None) -> None:
    """Write an error to standard error: one line, and one more for each problem."""
    print(f"tinyfleet: {message}", file=sys.stderr)
    for problem in problems or ():
        if problem not in message:
            print(f"  - {problem}", file=sys.stderr)
