"""Stories on one running fleet: bad versions, healthy versions, and everything that can be killed on the way."""

import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.client import ApiError
from fleet.cli.demo.agents import PLACES
from fleet.cli.demo.story import GOALS, MODEL, wait_for
from tests.system.conftest import STACK_GROUP, Fleet

pytestmark = STACK_GROUP
HEALTHY = 2
TARGETS = sorted({place.target for place in PLACES})


def test_a_version_trained_on_shuffled_labels_is_refused_by_min_accuracy(fleet: Fleet) -> None:
    version, dataset = fleet.upload("shuffled")
    job = fleet.story.compress({"version": version}, {"id": dataset})
    assert not any(result["met"] for result in job["results"].values())
    assert "min_accuracy binds" in job["results"][TARGETS[0]]["sentence"]
    assert fleet.api.items("/artifacts", model=MODEL, version=version) == []
    with pytest.raises(ApiError, match="no artifact"):
        fleet.story.roll_out(version, "field")


def test_a_healthy_version_finishes_and_every_device_says_it_runs_it(fleet: Fleet) -> None:
    version = other_version(fleet, "workshop")
    rollout = fleet.story.finished(fleet.story.roll_out(version, "workshop"))
    assert rollout["state"] == "succeeded", rollout["reason"]
    ends = {row["device"]: (row["state"], row["reason"]) for row in fleet.story.deliveries(rollout)}
    assert {state for state, _ in ends.values()} == {"succeeded"}, ends
    assert members("workshop") <= set(fleet.story.running(version))


def members(group: str) -> set[str]:
    """Names of the devices of a group."""
    return {place.name for place in PLACES if place.group == group}


def other_version(fleet: Fleet, group: str) -> int:
    """Of the two good versions, the one that a group does not run."""
    device = fleet.api.get(f"/devices/{min(members(group))}")
    return 1 if device["apps"][0]["version"] == HEALTHY else HEALTHY


def submit(fleet: Fleet, seed: int) -> int:
    """A job on version 1 with a seed of its own, so that no earlier job answers for it."""
    body = {"model": MODEL, "version": 1, "dataset": 1, "seed": seed, "goals": {"targets": TARGETS, **GOALS}}
    return int(fleet.api.post("/jobs", body)["id"])


def job_in(fleet: Fleet, job: int, *states: str, seconds: float = 240) -> dict[str, Any]:
    """The job once it is in one of the states."""

    def look() -> dict[str, Any] | None:
        seen: dict[str, Any] = fleet.api.get(f"/jobs/{job}")
        return seen if seen["state"] in states else None

    return wait_for(f"job {job} to be {' or '.join(states)}", look, seconds)


def measuring(fleet: Fleet, job: int) -> None:
    """Wait until a job has finished at least one candidate."""
    wait_for("a first candidate", lambda: fleet.api.items(f"/jobs/{job}/candidates") or None, 60)


def test_a_killed_worker_costs_one_attempt_and_publishes_nothing_twice(fleet: Fleet) -> None:
    before = len(fleet.api.items("/artifacts", model=MODEL, version=1))
    job = submit(fleet, seed=11)
    measuring(fleet, job)
    killed_at = time.monotonic()
    fleet.stack.kill("worker-compression")
    wait_for("a second attempt", lambda: fleet.api.get(f"/jobs/{job}")["attempt"] == 2 or None, 30)
    assert time.monotonic() - killed_at < 30
    assert job_in(fleet, job, "succeeded", "failed")["state"] == "succeeded"
    keys = [(c["target"], c["key"]) for c in fleet.api.items(f"/jobs/{job}/candidates")]
    assert len(keys) == len(set(keys))
    assert len(fleet.api.items("/artifacts", model=MODEL, version=1)) <= before + len(TARGETS)


def test_a_cancelled_job_ends_within_seconds_and_publishes_nothing(fleet: Fleet) -> None:
    before = fleet.api.items("/artifacts", model=MODEL)
    job = submit(fleet, seed=12)
    measuring(fleet, job)
    fleet.api.post(f"/jobs/{job}/cancel")
    assert job_in(fleet, job, "cancelled", "succeeded", "failed", seconds=20)["state"] == "cancelled"
    assert fleet.api.items("/artifacts", model=MODEL) == before


def online(fleet: Fleet, name: str) -> bool | None:
    """True once the device is online."""
    return fleet.api.get(f"/devices/{name}")["online"] or None


def test_a_device_without_its_state_folder_joins_again_and_reports(fleet: Fleet) -> None:
    name = PLACES[0].name
    fleet.story.devices.kill(f"{name}.agent")
    shutil.rmtree(fleet.story.devices.state_folder(name))
    wait_for("the will of a killed device", lambda: not online(fleet, name) or None, 60)
    reports = fleet.api.get("/telemetry/summary", device=name)["n"]
    fleet.story.devices.start_agent(name)
    wait_for(f"{name} online", lambda: online(fleet, name), 30)
    more = lambda: fleet.api.get("/telemetry/summary", device=name)["n"] > reports or None  # noqa: E731
    wait_for(f"new reports of {name}", more, 60)


def test_a_broker_that_lost_its_disk_gets_everything_again(fleet: Fleet, tmp_path: Path) -> None:
    store = fleet.stack.var / "broker" / "store"
    store.rename(tmp_path / "lost")
    fleet.stack.kill("broker")
    wait_for("every device online again", fleet.story.all_online, 90)
    assert (
        fleet.story.finished(fleet.story.roll_out(other_version(fleet, "field"), "field"))["state"]
        == "succeeded"
    )


def test_a_restored_older_database_locks_no_device_out(fleet: Fleet, tmp_path: Path) -> None:
    live, saved = fleet.stack.var / "tinyfleet.sqlite3", tmp_path / "saved.sqlite3"
    with sqlite3.connect(live) as source, sqlite3.connect(saved) as target:
        source.backup(target)
    version = other_version(fleet, "field")
    assert fleet.story.finished(fleet.story.roll_out(version, "field"))["state"] == "succeeded"
    with sqlite3.connect(saved) as source, sqlite3.connect(live) as target:
        source.backup(target)
    # The database now issues sequences that the devices have seen already, for other manifests.
    rollout = fleet.story.finished(fleet.story.roll_out(version, "field"))
    assert rollout["state"] == "succeeded", rollout["reason"]
    assert members("field") <= set(fleet.story.running(version))
