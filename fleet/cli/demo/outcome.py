"""What came out: the table a person reads, and `demo.json` for programs."""

from typing import Any

from rich import box
from rich.table import Table

from fleet.cli.demo.agents import PLACES, Place
from fleet.cli.demo.story import MODEL, Story, StoryError
from fleet.cli.output import share

HEADINGS = ("accuracy on the server", "on the device", "p50 / p95", "state")
# Narrower terminals break lines; a table cut off would hide what the story is about.
TABLE_COLUMNS = 190
Json = dict[str, Any]


def rows(story: Story, version: int) -> list[Json]:
    """One row a device: what it runs, and what server and device say about it."""
    artifacts = {
        artifact["target"]: artifact
        for artifact in story.api.items("/artifacts", model=MODEL, version=version)
    }
    return [_row(story, place, artifacts[place.target]) for place in PLACES]


def _row(story: Story, place: Place, artifact: Json) -> Json:
    name = place.name
    device = story.api.get(f"/devices/{name}")
    installed: Json = next((app for app in device["apps"] if app["app"] == "main"), {})
    if installed.get("artifact") != artifact["id"]:
        raise StoryError(f"{name} does not run the artifact for its target")
    summary = story.api.get("/telemetry/summary", device=name, artifact=artifact["id"])
    latency = summary["latency"]
    return {
        "device": name,
        "target": device["target"],
        "runtime": place.runtime,
        "artifact": artifact["sha256"],
        "model": artifact["model"],
        "version": artifact["version"],
        "bytes": artifact["bytes"],
        "server_accuracy": artifact["measurements"]["test_accuracy"],
        "device_accuracy": summary["accuracy"],
        "n": summary["n"],
        "p50_us": latency["p50_us"],
        "p95_us": latency["p95_us"],
        "state": device["presence"],
    }


def table(devices: list[Json]) -> Table:
    """The rows as a table for the terminal."""
    built = Table(title="What runs where", box=box.SIMPLE, title_style="bold")
    for heading in ("device", "target", "runtime", "artifact", "bytes", *HEADINGS):
        built.add_column(heading, justify="right" if heading == "bytes" else "left", no_wrap=True)
    for row in devices:
        built.add_row(
            row["device"],
            row["target"],
            row["runtime"],
            f"v{row['version']} {row['artifact'][:8]}",
            f"{row['bytes']:,}",
            share("server_accuracy")(row),
            share("device_accuracy")(row),
            f"{_milliseconds(row['p50_us'])} / {_milliseconds(row['p95_us'])}",
            row["state"],
        )
    return built


def _milliseconds(microseconds: int | None) -> str:
    return "–" if microseconds is None else f"{microseconds / 1000:.2f} ms"


def broken_version(story: Story, rollout: Json, good: int) -> Json:
    """How far the broken version came: who stopped it, who was exposed, who says it runs the good one."""
    deliveries = story.deliveries(rollout)
    stopped = [d for d in deliveries if d["kind"] == "install" and d["state"] == "rolled_back"]
    gates = [decision for decision in rollout["decisions"] if decision["verb"] == "roll_back"]
    stopped_by = ["device trial"] * bool(stopped) + ["gate"] * bool(gates)
    return {
        "stopped_by": stopped_by,
        "exposed": rollout["exposed"],
        "restored": len(story.running(good)),
        "evidence": {
            "device": [{"device": d["device"], "reason": d["reason"], **d["evidence"]} for d in stopped],
            "gate": [{"sentence": d["sentence"], **d["evidence"]} for d in gates],
        },
    }
