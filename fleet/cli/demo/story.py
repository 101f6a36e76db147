"""The demonstration, played as a user would: every step goes through the REST API with a token."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fleet.cli.client import Client
from fleet.cli.demo.agents import PLACES, Devices, Place

MODEL = "digits"
GOALS = {"min_accuracy": 0.90, "max_drop": 0.03}
# Host latency is never judged, so there is no deadline.
TRIAL = {"min_inferences": 50, "min_labelled": 20, "max_seconds": 60}
STRATEGY = {"waves": [1, "100%"], "soak_seconds": 0, "trial": TRIAL}
POLL_S = 0.3
WORKLOAD_RATE, BOARD_RATE = 25.0, 10.0
# Shorter than a real fleet's, so that the story is short.
HEARTBEAT_S, REPORT_S = 10, 3

Json = dict[str, Any]
Found = TypeVar("Found")


class StoryError(Exception):
    """A step of the demonstration did not come out right."""


def wait_for(what: str, look: Callable[[], Found | None], seconds: float) -> Found:
    """Look again and again until something is found; StoryError names what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise StoryError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(POLL_S)


@dataclass
class Story:
    """What has been made so far, and the verbs that go on from there."""

    api: Client
    folder: Path
    devices: Devices
    say: Callable[[str], None]
    steps: list[Json] = field(default_factory=list)
    training: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step and say what it is."""
        self.say(name)
        began = time.monotonic()
        yield
        self.steps.append({"step": name, "seconds": round(time.monotonic() - began, 1)})

    def end(self) -> None:
        """Stop the devices and any training that still runs."""
        self.devices.stop()
        for process in self.training.values():
            process.terminate()
            process.wait()

    # --- training ----------------------------------------------------------------------------

    def train(self, name: str, labels: str, seed: int) -> None:
        """Begin to train a version in a process of its own; `trained` waits for it."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        module = [sys.executable, "-m", "fleet.cli.demo.training", str(folder)]
        with (folder / "training.log").open("wb") as log:
            arguments = [*module, "--labels", labels, "--seed", str(seed)]
            self.training[name] = subprocess.Popen(arguments, stdout=log, stderr=log)

    def trained(self, name: str) -> Path:
        """The folder with `digits.onnx`, `digits.onnx.data`, `digits.npz` and `field.json` of a version."""
        if self.training[name].wait(timeout=180) != 0:
            raise StoryError(f"training failed; see {self.folder / name / 'training.log'}")
        return self.folder / name

    # --- upload and compress -----------------------------------------------------------------

    def make_model(self) -> None:
        """Name the task, unless an earlier demonstration on the same data did."""
        if self.versions_so_far() is None:
            self.api.post("/models", {"slug": MODEL, "name": "Handwritten digits", "task": "classification"})

    def versions_so_far(self) -> int | None:
        """How many versions of the task there are; None when it has no name yet."""
        known = {model["slug"]: model["versions"] for model in self.api.items("/models")}
        return known.get(MODEL)

    def upload(self, folder: Path, notes: str) -> tuple[Json, Json]:
        """Upload model and dataset of a trained version and wait until the server has checked both."""
        model_files = [folder / "digits.onnx", folder / "digits.onnx.data"]
        version = self.api.upload(f"/models/{MODEL}/versions", {"files": model_files}, {"notes": notes})
        dataset = self.known_dataset(folder / "digits.npz")
        if dataset is None:
            dataset = self.api.upload("/datasets", {"file": [folder / "digits.npz"]}, {"name": notes})
        version = self.checked(f"/models/{MODEL}/versions/{version['version']}")
        return version, self.checked(f"/datasets/{dataset['id']}")

    def known_dataset(self, path: Path) -> Json | None:
        """The dataset with the same bytes, when an earlier demonstration uploaded it."""
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known = (dataset for dataset in self.api.items("/datasets") if dataset["sha256"] == sha256)
        return next((dataset for dataset in known if dataset["state"] == "ready"), None)

    def checked(self, path: str) -> Json:
        """An upload once the server has looked at it; a refusal ends the story with its reason."""

        def look() -> Json | None:
            upload: Json = self.api.get(path)
            return None if upload["state"] == "checking" else upload

        upload = wait_for(f"the check of {path}", look, 90)
        if upload["state"] != "ready":
            raise StoryError(f"{path} was refused: {upload['reason']}")
        return upload

    def compress(self, version: Json, dataset: Json) -> Json:
        """Submit one job for all targets of the fleet and follow it to its end."""
        targets = sorted({place.target for place in PLACES})
        body = {"model": MODEL, "version": version["version"], "dataset": dataset["id"]}
        job = self.api.post("/jobs", {**body, "goals": {"targets": targets, **GOALS}})
        said = ""

        def look() -> Json | None:
            nonlocal said
            seen: Json = self.api.get(f"/jobs/{job['id']}")
            message = str((seen.get("progress") or {}).get("message") or "")
            if message and message != said:
                said = message
                self.say(f"    {message}")
            return seen if seen["state"] in ("succeeded", "failed", "cancelled") else None

        return wait_for(f"job {job['id']}", look, 240)

    # --- devices -----------------------------------------------------------------------------

    def enrol(self, rows: Path) -> None:
        """Make the groups, enrol every device with a one-time token, start agents and workloads."""
        known = {group["slug"] for group in self.api.items("/groups")}
        for slug in sorted({place.group for place in PLACES} - known):
            self.api.post("/groups", {"slug": slug, "name": slug.title()})
        enrolled = {device["name"] for device in self.api.items("/devices")}
        for place in PLACES:
            token = "" if place.name in enrolled else self.enrolment_token(place)
            self.devices.start_agent(place.name, token)
            rate = BOARD_RATE if place.runtime == "micropython" else WORKLOAD_RATE
            self.devices.start_workload(place.name, rows, rate)
        wait_for(f"{len(PLACES)} devices online", self.all_online, 60)

    def enrolment_token(self, place: Place) -> str:
        """A token for one device of one hardware class, good for one use."""
        body = {"target": place.target, "groups": [place.group], "labels": {"site": place.group}, "uses": 1}
        body |= {"heartbeat_s": HEARTBEAT_S, "report_s": REPORT_S}
        token: str = self.api.post("/enrolment-tokens", body)["token"]
        return token

    def all_online(self) -> list[Json] | None:
        """The fleet once every device is online."""
        if dead := self.devices.exited():
            raise StoryError(f"{dead[0]} ended by itself; see {self.devices.log(dead[0])}")
        fleet = self.api.items("/devices")
        return fleet if len([d for d in fleet if d["online"]]) >= len(PLACES) else None

    # --- rollouts ----------------------------------------------------------------------------

    def roll_out(self, version: int, group: str) -> Json:
        """Create and start a rollout in waves: one device, then the rest."""
        body = {"model": MODEL, "version": version, "group": group, "strategy": STRATEGY}
        rollout: Json = self.api.post("/rollouts", body)
        self.api.post(f"/rollouts/{rollout['id']}/start", {})
        return rollout

    def finished(self, rollout: Json, seconds: float = 120) -> Json:
        """A rollout once it has reached an end."""

        def look() -> Json | None:
            seen: Json = self.api.get(f"/rollouts/{rollout['id']}")
            return seen if seen["state"] in ("succeeded", "rolled_back", "aborted", "held") else None

        return wait_for(f"rollout {rollout['id']}", look, seconds)

    def deliveries(self, rollout: Json) -> list[Json]:
        """Each device's share of a rollout."""
        return self.api.items(f"/rollouts/{rollout['id']}/deliveries")

    # --- what the devices say ----------------------------------------------------------------

    def hellos(self) -> dict[str, Json]:
        """Ask every device for a fresh hello and return what each says it runs in `main`."""
        before = {d["name"]: d["hello"].get("uptime_ms") for d in self.api.items("/devices")}
        for place in PLACES:
            self.api.post(f"/devices/{place.name}/commands", {"name": "hello"})

        def look() -> list[Json] | None:
            fleet = [self.api.get(f"/devices/{place.name}") for place in PLACES]
            return fleet if all(d["hello"].get("uptime_ms") != before[d["name"]] for d in fleet) else None

        fleet = wait_for("a fresh hello of every device", look, 30)
        return {d["name"]: (d["hello"].get("apps") or {}).get("main") or {} for d in fleet}

    def running(self, version: int) -> list[str]:
        """Devices whose fresh hello names this version."""
        named = {name: (app.get("installed") or {}).get("version") for name, app in self.hellos().items()}
        return sorted(name for name, running in named.items() if running == version)

    def reported(self, version: int, labelled: int) -> list[Json]:
        """The telemetry summary of every device for this version, once each has enough labelled answers of it."""
        made = self.api.items("/artifacts", model=MODEL, version=version)
        artifact = {found["target"]: found["id"] for found in made}

        def look() -> list[Json] | None:
            # Of other artifacts the devices of an earlier demonstration have answers enough.
            found = [
                self.api.get("/telemetry/summary", device=place.name, artifact=artifact[place.target])
                for place in PLACES
            ]
            return found if all(row["labelled"] >= labelled for row in found) else None

        return wait_for(f"{labelled} labelled answers of every device", look, 60)
