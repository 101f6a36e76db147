"""`tinyfleet devices`, `groups`, `enrol-token`: where it can run."""

import json
from typing import Annotated, Any

import typer

from fleet.cli.output import AsJson, Column, Row, ago, console, show
from fleet.cli.server import client

devices = typer.Typer(no_args_is_help=True, help="Devices.")
groups = typer.Typer(no_args_is_help=True, help="Groups of devices, by hand or by a label rule.")

Label = Annotated[list[str] | None, typer.Option("--label", help="name=value; give it once for each.")]


def _installed(row: Row) -> str:
    apps = row.get("apps") or ()
    return ", ".join(
        f"{app['app']}: {app['model']} {app['version']}" if app.get("model") else f"{app['app']}: nothing"
        for app in apps
    )


def _delivery(row: Row) -> str:
    return ", ".join(app["delivery_state"] for app in row.get("apps") or () if app.get("delivery_state"))


DEVICE: list[Column] = [
    ("device", "name"),
    ("target", "target"),
    ("presence", "presence"),
    ("installed", _installed),
    ("delivery", _delivery),
    ("groups", "groups"),
    ("last heard", ago("last_seen_at")),
]
GROUP: list[Column] = [
    ("group", "slug"),
    ("name", "name"),
    ("rule", "rule"),
    ("devices", lambda row: len(row.get("devices") or ())),
]
COMMAND: list[Column] = [
    ("id", "id"),
    ("device", "device"),
    ("command", "name"),
    ("state", "state"),
    ("sent", ago("created_at")),
]


def labels_of(given: list[str] | None) -> dict[str, str]:
    """`name=value` options as a mapping; a usage error names the one that is not."""
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"'{text}' is not name=value", param_hint="--label")
        found[name] = value
    return found


@devices.command("list")
def list_devices(
    group: str | None = None, target: str | None = None, state: str | None = None, as_json: AsJson = False
) -> None:
    """Show devices, what runs on them, and when they were last heard."""
    found = client().items("/devices", group=group, target=target, state=state)
    show(found, DEVICE, as_json, empty="no devices; make a token with `tinyfleet enrol-token`")


@devices.command("show")
def show_device(device: str, as_json: AsJson = False) -> None:
    """Show one device."""
    more: list[Column] = [("state", "state"), ("enrolled", ago("enrolled_at")), ("agent", "hello.agent")]
    show(client().get(f"/devices/{device}"), [*DEVICE, *more], as_json)


@devices.command("revoke")
def revoke(device: str, as_json: AsJson = False) -> None:
    """Take a device's credential away; the broker throws it off."""
    show(client().post(f"/devices/{device}/revoke"), DEVICE, as_json)


@devices.command("retire")
def retire(device: str, as_json: AsJson = False) -> None:
    """Count on a device no more."""
    show(client().post(f"/devices/{device}/retire"), DEVICE, as_json)


@devices.command("reinstate")
def reinstate(device: str, as_json: AsJson = False) -> None:
    """Count on a revoked or retired device again."""
    show(client().post(f"/devices/{device}/reinstate"), DEVICE, as_json)


@devices.command("command")
def command(
    device: str,
    name: Annotated[str, typer.Argument(help="selftest, report_now, restart or hello")],
    app: str = "main",
    args: Annotated[str, typer.Option(help="Arguments as a JSON object.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """Send a command; a device that is away gets it when it returns."""
    body = {"name": name, "app": app, "args": _object(args)}
    show(client().post(f"/devices/{device}/commands", body), COMMAND, as_json)


@groups.command("list")
def list_groups(as_json: AsJson = False) -> None:
    """Show all groups."""
    show(client().items("/groups"), GROUP, as_json, empty="no groups yet")


@groups.command("create")
def create_group(
    slug: str,
    name: str = "",
    rule: Annotated[
        str, typer.Option(help="Label rule, such as 'site=berlin and target=raspberry-pi-4'.")
    ] = "",
    device: Annotated[list[str] | None, typer.Option(help="A member; give it once for each.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a group."""
    body = {"slug": slug, "name": name or slug, "rule": rule, "devices": device or []}
    show(client().post("/groups", body), GROUP, as_json)


@groups.command("set-devices")
def set_devices(slug: str, devices: list[str], as_json: AsJson = False) -> None:
    """Let a group hold exactly these devices."""
    show(client().put(f"/groups/{slug}/devices", {"devices": devices}), GROUP, as_json)


@groups.command("delete")
def delete_group(slug: str) -> None:
    """Delete a group; its devices stay."""
    client().delete(f"/groups/{slug}")


def enrol_token(
    target: Annotated[str, typer.Argument(help="Slug of the devices' target.")],
    group: Annotated[list[str] | None, typer.Option(help="A group they join; give it once for each.")] = None,
    label: Label = None,
    uses: int = 1,
    expires_in: Annotated[int, typer.Option(help="Seconds until it expires.")] = 3600,
    as_json: AsJson = False,
) -> None:
    """Make a token with which devices enrol themselves; it is shown once."""
    body = {"target": target, "groups": group or [], "labels": labels_of(label)}
    with client() as api:
        found = api.post("/enrolment-tokens", {**body, "uses": uses, "expires_in_s": expires_in})
        server = api.url
    if as_json:
        show(found, [], as_json)
        return
    console.print(found["token"], markup=False, highlight=False, soft_wrap=True)
    line = f"tinyfleet-agent run --server {server} --token {found['token']} --device NAME --state DIR"
    console.print(f"On the device: {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"it is not JSON: {error}", param_hint="--args") from None
    if not isinstance(found, dict):
        raise typer.BadParameter("it is not a JSON object", param_hint="--args")
    return found
