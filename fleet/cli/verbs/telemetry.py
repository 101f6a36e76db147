"""`tinyfleet telemetry`, `alerts`, `health`, `me`, `login`: what happens, and who asks."""

from typing import Annotated

import typer

from fleet.cli.client import ApiError, Client
from fleet.cli.output import AsJson, Column, ago, console, print_json, share, show
from fleet.cli.server import client, find, keep

telemetry = typer.Typer(no_args_is_help=True, help="What devices report.")

LATENCY: list[Column] = [
    ("p50 us", "latency.p50_us"),
    ("p95 us", "latency.p95_us"),
    ("p99 us", "latency.p99_us"),
]
SUMMARY: list[Column] = [
    ("predictions", "n"),
    ("errors", "errors"),
    ("devices", "devices"),
    *LATENCY,
    ("labelled", "labelled"),
    ("accuracy on labels", share("accuracy")),
    ("reports lost on devices", "dropped"),
    ("last", ago("last_at")),
]
POINT: list[Column] = [
    ("from", "at"),
    ("predictions", "n"),
    ("errors", "errors"),
    *LATENCY,
    ("accuracy on labels", share("accuracy")),
]
ALERT: list[Column] = [
    ("alert", "kind"),
    ("device", "device"),
    ("", "sentence"),
    ("raised", ago("raised_at")),
    ("closed", ago("closed_at")),
]


@telemetry.command("summary")
def summary(
    device: str | None = None, group: str | None = None, artifact: int | None = None, as_json: AsJson = False
) -> None:
    """Show latency and labelled accuracy, merged from all reports that match."""
    show(client().get("/telemetry/summary", device=device, group=group, artifact=artifact), SUMMARY, as_json)


@telemetry.command("latency")
def latency(
    device: str | None = None,
    group: str | None = None,
    artifact: int | None = None,
    bucket: Annotated[str, typer.Option(help="minute or hour")] = "minute",
    as_json: AsJson = False,
) -> None:
    """Show latency over time."""
    query = {"device": device, "group": group, "artifact": artifact, "bucket": bucket}
    show(client().get("/telemetry/latency", **query), POINT, as_json, empty="no reports yet")


def alerts(as_json: AsJson = False) -> None:
    """Show what needs attention."""
    show(client().items("/alerts"), ALERT, as_json, empty="nothing needs you")


def health(as_json: AsJson = False) -> None:
    """Show whether every part of the server is at work; exit code 1 unless all are."""
    with client() as api:
        try:
            found = api.get("/health")
        except ApiError as error:
            if error.status != 503:
                raise
            found = {"status": "down", "checks": {}}
    if as_json:
        print_json(found)
    else:
        rows = [{"part": part, **check} for part, check in found["checks"].items()]
        state: list[Column] = [
            ("part", "part"),
            ("state", lambda row: "ok" if row["ok"] else "down"),
            ("", "detail"),
        ]
        show(rows, state, as_json, empty="database or Redis does not answer")
    if found["status"] != "ok":
        raise typer.Exit(1)


def me(as_json: AsJson = False) -> None:
    """Show which server answers, and who it takes you for."""
    server = find()
    with client() as api:
        found = {"url": server.url, "from": server.source, **api.get("/me")}
    show(found, [("server", "url"), ("from", "from"), ("user", "username"), ("roles", "roles")], as_json)


def login(
    url: Annotated[str, typer.Argument(help="Address of the server, such as https://fleet.example.org.")],
    token: Annotated[
        str, typer.Option(prompt="API token", hide_input=True, help="Asked for when not given.")
    ],
) -> None:
    """Remember a server and an API token (make one on the page Account) for later commands."""
    with Client(url, token.strip()) as api:
        who = api.get("/me")
    file = keep(url, token.strip())
    console.print(
        f"{who['username']} at {url}; kept in {file}", markup=False, highlight=False, soft_wrap=True
    )
