"""`tinyfleet jobs`: compress a version to the budgets of targets, and watch."""

import time
from typing import Annotated, Any

import typer
from rich.text import Text

from fleet.cli.client import Client
from fleet.cli.output import AsJson, Column, Row, ago, console, path, print_json, share, show, size
from fleet.cli.server import client

POLL_SECONDS = 0.5
ENDS = ("succeeded", "failed", "cancelled")

jobs = typer.Typer(no_args_is_help=True, help="Compression jobs.")

JOB: list[Column] = [
    ("job", "id"),
    ("model", "model"),
    ("version", "version"),
    ("targets", "targets"),
    ("state", "state"),
    ("reason", "reason"),
    ("submitted", ago("created_at")),
]
RESULT: list[Column] = [
    ("target", "target"),
    ("met", lambda row: "yes" if row.get("met") else "no"),
    ("", "sentence"),
]


def _recipe(row: Row) -> str:
    return " > ".join(str(step.get("name", "?")) for step in row.get("recipe") or ()) or "as it is"


CANDIDATE: list[Column] = [
    ("target", "target"),
    ("recipe", _recipe),
    ("size", size("bytes")),
    ("peak RAM", size("peak_ram_bytes")),
    ("accuracy on validation rows", share("measurements.accuracy")),
    ("fits", lambda row: "yes" if row.get("fits") else "no"),
    ("", lambda row: "published" if row.get("artifact") else row.get("rejected") or ""),
]


@jobs.command("submit")
def submit(
    model: Annotated[str, typer.Option()],
    version: Annotated[int, typer.Option()],
    dataset: Annotated[int, typer.Option(help="Id of the dataset.")],
    target: Annotated[list[str], typer.Option(help="Slug of a target; give it once for each.")],
    min_accuracy: Annotated[float | None, typer.Option(help="Lowest accuracy, such as 0.9.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest loss against the original, such as 0.03.")
    ] = None,
    objective: Annotated[str, typer.Option(help="bytes, ram, latency or accuracy.")] = "bytes",
    train_steps: Annotated[
        int | None, typer.Option(help="Training steps at most; 0: nothing is trained.")
    ] = None,
    max_candidates: Annotated[int | None, typer.Option(help="Candidates at most.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop trying after so long.")] = None,
    seed: int = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a compression job."""
    goals = {"targets": target, "min_accuracy": min_accuracy, "max_drop": max_drop, "objective": objective}
    spends = {"train_steps": train_steps, "candidates": max_candidates, "max_seconds": max_seconds}
    effort = {name: value for name, value in spends.items() if value is not None}
    body = {"model": model, "version": version, "dataset": dataset, "goals": goals}
    body |= {"effort": effort, "seed": seed}
    with client() as api:
        job = api.post("/jobs", body)
        if follow:
            _follow(api, job["id"], as_json)
            return
    show(job, JOB, as_json)


@jobs.command("list")
def list_jobs(state: str | None = None, model: str | None = None, as_json: AsJson = False) -> None:
    """Show jobs, newest first."""
    show(client().items("/jobs", state=state, model=model), JOB, as_json, empty="no jobs yet")


@jobs.command("follow")
def follow(job: int, as_json: AsJson = False) -> None:
    """Watch a job to its end; exit code 1 unless it succeeds."""
    with client() as api:
        _follow(api, job, as_json)


@jobs.command("cancel")
def cancel(job: int, as_json: AsJson = False) -> None:
    """Stop a job."""
    show(client().post(f"/jobs/{job}/cancel"), JOB, as_json)


@jobs.command("candidates")
def candidates(job: int, target: str | None = None, as_json: AsJson = False) -> None:
    """Show everything a job measured, and why it was rejected."""
    found = client().items(f"/jobs/{job}/candidates", target=target)
    show(found, CANDIDATE, as_json, empty="nothing measured yet")


def progress_line(job: Row) -> str:
    """Where a job stands, in one line."""
    done, total = path(job, "progress.done"), path(job, "progress.total")
    count = f" {done} of {total}" if total else ""
    parts = (
        path(job, "progress.target"),
        f"{path(job, 'progress.step') or ''}{count}",
        path(job, "progress.message"),
    )
    return ": ".join([str(job["state"]), *(str(part) for part in parts if part)])


def _follow(api: Client, job: int, as_json: bool) -> None:
    said = ""
    while True:
        found: dict[str, Any] = api.get(f"/jobs/{job}")
        line = progress_line(found)
        if line != said and not as_json:
            console.print(Text(line))
        said = line
        if found["state"] in ENDS:
            break
        time.sleep(POLL_SECONDS)
    if as_json:
        print_json(found)
    else:
        show(found, JOB, as_json)
        show(
            [{"target": slug, **result} for slug, result in found["results"].items()],
            RESULT,
            as_json,
            empty="",
        )
    if found["state"] != "succeeded":
        raise typer.Exit(1)
