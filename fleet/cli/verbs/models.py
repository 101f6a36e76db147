"""`tinyfleet models`, `versions`, `datasets`, `targets`, `artifacts`: what can run."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.cli.client import ApiError, Client
from fleet.cli.output import AsJson, Column, Row, ago, bytes_text, console, path, share, show, size
from fleet.cli.server import client

POLL_SECONDS = 0.5
CHECK_SECONDS = 900

models = typer.Typer(no_args_is_help=True, help="Models: named tasks, such as 'digits'.")
versions = typer.Typer(no_args_is_help=True, help="Versions: immutable uploads of a model.")
datasets = typer.Typer(no_args_is_help=True, help="Datasets: .npz files with x, y and, when given, split.")
targets = typer.Typer(no_args_is_help=True, help="Targets: hardware classes and what they leave for a model.")
artifacts = typer.Typer(no_args_is_help=True, help="Artifacts: published small versions, one a target.")

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the server has checked it.")]


def _aliases(row: Row) -> str:
    return ", ".join(f"{alias['name']} = {alias['version']}" for alias in row.get("aliases") or ())


def _shapes(side: str) -> Column:
    def shown(row: Row) -> str:
        found = path(row, f"facts.{side}") or ()
        return ", ".join(f"{each['name']} {each['dtype']} {each['shape']}" for each in found)

    return side, shown


MODEL: list[Column] = [
    ("model", "slug"),
    ("name", "name"),
    ("task", "task"),
    ("versions", "versions"),
    ("aliases", _aliases),
]
VERSION: list[Column] = [
    ("model", "model"),
    ("version", "version"),
    ("state", "state"),
    ("reason", "reason"),
    ("size", size("bytes")),
    ("parameters", "facts.parameters"),
    ("MACs", "facts.macs"),
    ("uploaded", ago("created_at")),
]
DATASET: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("state", "state"),
    ("reason", "reason"),
    ("size", size("bytes")),
    ("task", "facts.task"),
    ("uploaded", ago("created_at")),
]
TARGET: list[Column] = [
    ("target", "slug"),
    ("name", "name"),
    ("runtime", "runtime"),
    ("flash for a model", size("flash_bytes")),
    ("RAM for a model", size("ram_bytes")),
    ("rollouts", lambda row: "no, export only" if row.get("export_only") else "yes"),
]
STILL_RUNS: list[Column] = [
    ("device", "device"),
    ("app", "app"),
    ("target", "target"),
    ("since", ago("since")),
    ("what becomes of it", "outlook"),
]
ARTIFACT: list[Column] = [
    ("id", "id"),
    ("model", "model"),
    ("version", "version"),
    ("target", "target"),
    ("size", size("bytes")),
    ("over the air", size("transport_bytes")),
    ("accuracy on test rows", share("measurements.test_accuracy")),
    ("sha256", lambda row: str(row.get("sha256", ""))[:12]),
]


def wait_until_checked(api: Client, where: str) -> dict[str, Any]:
    """The upload once it is ready; ApiError with the server's reason when it is refused."""
    deadline = time.monotonic() + CHECK_SECONDS
    while True:
        found: dict[str, Any] = api.get(where)
        if found["state"] == "refused":
            raise ApiError(
                found["reason"] or "the upload was refused", code="refused", problems=found["problems"]
            )
        if found["state"] != "checking":
            return found
        if time.monotonic() > deadline:
            raise ApiError(
                f"it was not checked within {CHECK_SECONDS} s", remedy="Look at `tinyfleet health`"
            )
        time.sleep(POLL_SECONDS)


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Show all models with their aliases."""
    show(
        client().items("/models"),
        MODEL,
        as_json,
        empty="no models yet; make one with `tinyfleet models create`",
    )


@models.command("create")
def create_model(
    slug: str, name: str = "", description: str = "", task: str = "classification", as_json: AsJson = False
) -> None:
    """Make a model to upload versions to."""
    body = {"slug": slug, "name": name or slug, "description": description, "task": task}
    show(client().post("/models", body), MODEL, as_json)


@models.command("alias")
def move_alias(model: str, alias: str, version: int, reason: str = "", as_json: AsJson = False) -> None:
    """Point an alias, such as champion, at a version."""
    moved = client().put(f"/models/{model}/aliases/{alias}", {"version": version, "reason": reason})
    show(moved, [("alias", "name"), ("version", "version")], as_json)


@versions.command("list")
def list_versions(model: str, as_json: AsJson = False) -> None:
    """Show the versions of a model."""
    show(client().items(f"/models/{model}/versions"), VERSION, as_json, empty=f"{model} has no versions yet")


@versions.command("show")
def show_version(model: str, version: int, as_json: AsJson = False) -> None:
    """Show one version: its state, facts, inputs and outputs."""
    found = client().get(f"/models/{model}/versions/{version}")
    show(found, [*VERSION, _shapes("inputs"), _shapes("outputs"), ("sha256", "sha256")], as_json)


@versions.command("upload")
def upload_version(
    model: str,
    files: Annotated[list[Path], typer.Argument(help="model.onnx, with model.onnx.data if it has one")],
    notes: str = "",
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Upload a version of a model."""
    with client() as api:
        found = api.upload(f"/models/{model}/versions", {"files": files}, {"notes": notes})
        if wait:
            found = wait_until_checked(api, f"/models/{model}/versions/{found['version']}")
    show(found, VERSION, as_json)


@datasets.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """Show all datasets."""
    show(client().items("/datasets"), DATASET, as_json, empty="no datasets yet")


@datasets.command("upload")
def upload_dataset(file: Path, name: str = "", wait: Wait = True, as_json: AsJson = False) -> None:
    """Upload a dataset."""
    with client() as api:
        found = api.upload("/datasets", {"file": [file]}, {"name": name or file.stem})
        if wait:
            found = wait_until_checked(api, f"/datasets/{found['id']}")
    show(found, DATASET, as_json)


@targets.command("list")
def list_targets(as_json: AsJson = False) -> None:
    """Show all hardware classes."""
    show(client().items("/targets"), TARGET, as_json)


@targets.command("show")
def show_target(target: str, as_json: AsJson = False) -> None:
    """Show one hardware class, and what is subtracted from its data sheet's totals."""
    found = client().get(f"/targets/{target}")
    totals: list[Column] = [
        ("chip", "chip"),
        ("flash in all", size("flash_total_bytes")),
        ("RAM in all", size("ram_total_bytes")),
        ("source", "source"),
    ]
    show(found, [*TARGET, *totals], as_json)
    if not as_json:
        taken: list[Column] = [
            ("taken by", "what"),
            ("flash", size("flash_bytes")),
            ("RAM", size("ram_bytes")),
        ]
        show(found.get("subtraction") or [], taken, as_json, empty="nothing is subtracted")


@artifacts.command("list")
def list_artifacts(
    model: str | None = None, version: int | None = None, target: str | None = None, as_json: AsJson = False
) -> None:
    """Show published artifacts."""
    found = client().items("/artifacts", model=model, version=version, target=target)
    show(found, ARTIFACT, as_json, empty="no artifacts yet; submit a job with `tinyfleet jobs submit`")


@artifacts.command("show")
def show_artifact(artifact: int, as_json: AsJson = False) -> None:
    """Show one artifact with its measurements."""
    more: list[Column] = [
        ("format", "format"),
        ("peak RAM", size("measurements.peak_ram_bytes")),
        ("MACs", "measurements.macs"),
        ("made by job", "job"),
    ]
    show(client().get(f"/artifacts/{artifact}"), [*ARTIFACT, *more], as_json)


@artifacts.command("download")
def download_artifact(artifact: int, out: Annotated[Path | None, typer.Option("--out", "-o")] = None) -> None:
    """Download an artifact to a file."""
    with client() as api:
        found = api.get(f"/artifacts/{artifact}")
        name = f"{found['model']}-{found['version']}-{found['target']}.{found['format']}"
        file = out / name if out is not None and out.is_dir() else out or Path(name)
        written = api.download(f"/artifacts/{artifact}/download", file)
    console.print(f"{file}: {bytes_text(written)}", highlight=False, markup=False)


@versions.command("recall")
def recall_version(
    model: str,
    number: int,
    reason: Annotated[str, typer.Option("--reason", help="Why no device may run it any more.")],
    as_json: AsJson = False,
) -> None:
    """Let no device run a version any more, and show where it still runs."""
    _show_where(client().post(f"/models/{model}/versions/{number}/recall", {"reason": reason}), as_json)


@versions.command("still-runs")
def still_runs(model: str, number: int, as_json: AsJson = False) -> None:
    """Show which devices run a version, and what becomes of that."""
    _show_where(client().get(f"/models/{model}/versions/{number}/still-runs"), as_json)


def _show_where(found: dict[str, Any], as_json: bool) -> None:
    show(found["still_runs"], STILL_RUNS, as_json, empty="no device says that it runs it")
