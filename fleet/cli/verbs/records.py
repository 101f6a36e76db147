"""`tinyfleet history` and `tinyfleet hooks`: what ran where and when, and who is told how rollouts end."""

from typing import Annotated, Any

import typer

from fleet.cli.output import AsJson, Column, ago, show
from fleet.cli.server import client

hooks = typer.Typer(no_args_is_help=True, help="Who is told how rollouts and experiments go.")

SPAN: list[Column] = [
    ("device", "device"),
    ("app", "app"),
    ("model", "model"),
    ("version", "version"),
    ("target", "target"),
    ("from", "since"),
    ("to", "until"),
]
HOOK: list[Column] = [("hook", "id"), ("kind", "kind"), ("address", "address"), ("secret", "secret")]
NOTICE: list[Column] = [
    ("event", "event"),
    ("rollout", "rollout"),
    ("to", "address"),
    ("state", "state"),
    ("tries", "attempts"),
    ("reason", "reason"),
    ("made", ago("made_at")),
]

HookId = Annotated[str, typer.Argument(metavar="HOOK", help="Its id, as `hooks list` shows it.")]


def history(
    device: str = "",
    group: str = "",
    model: str = "",
    version: int | None = None,
    target: str = "",
    app: str = "",
    since: Annotated[str, typer.Option("--since", help="Such as 2027-01-31T02:00Z.")] = "",
    until: str = "",
    as_json: AsJson = False,
) -> None:
    """Show what ran where and when, newest first."""
    asked: dict[str, Any] = {"device": device, "group": group, "model": model, "target": target, "app": app}
    asked |= {"version": version, "since": since, "until": until}
    given = {name: value for name, value in asked.items() if value not in ("", None)}
    show(client().items("/history", **given), SPAN, as_json, empty="nothing ran there and then")


@hooks.command("list")
def list_hooks(as_json: AsJson = False) -> None:
    """Show every address that is told, with the secret that signs its messages."""
    show(client().items("/hooks"), HOOK, as_json, empty="nobody is told; add one with `tinyfleet hooks add`")


@hooks.command("add")
def add(
    address: Annotated[str, typer.Argument(help="https://… or somebody@example.org.")],
    as_json: AsJson = False,
) -> None:
    """Tell an address from now on."""
    kind = "webhook" if "://" in address else "email"
    show(client().post("/hooks", {"kind": kind, "address": address}), HOOK, as_json)


@hooks.command("remove")
def remove(hook: HookId) -> None:
    """Tell an address nothing more."""
    client().delete(f"/hooks/{hook}")


@hooks.command("test")
def try_out(hook: HookId, as_json: AsJson = False) -> None:
    """Send a test message."""
    show(client().post(f"/hooks/{hook}/test"), NOTICE, as_json)


@hooks.command("notices")
def notices(state: str = "", as_json: AsJson = False) -> None:
    """Show what was told and what waits, newest first."""
    show(client().items("/notices", state=state), NOTICE, as_json, empty="nothing was told yet")
