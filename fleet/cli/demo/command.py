"""`tinyfleet demo`: plays the story on a running stack, shows what came out, and serves until Ctrl-C."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fleet.cli.client import Client
from fleet.cli.demo.agents import PLACES, Devices
from fleet.cli.demo.outcome import TABLE_COLUMNS, broken_version, rows, table
from fleet.cli.demo.story import Story, StoryError
from fleet.cli.stack import Stack

MIN_LABELLED = 60
Json = dict[str, Any]


def demo(stack: Stack, console: Console, once: bool) -> int:
    """Play the story on a running stack and show what came out; 0 when every step came out right."""

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    began = time.monotonic()
    folder = stack.var / "demo"
    with Client(stack.url, stack.token) as api:
        story = Story(api, folder, Devices(folder / "devices", stack.url), say)
        try:
            outcome = play(story)
            outcome["seconds"] = round(time.monotonic() - began, 1)
            write(stack.var / "demo.json", outcome)
            show(stack, console, outcome)
            if not once:
                say("The fleet goes on working. Ctrl-C stops everything.")
                threading.Event().wait()
        except StoryError as error:
            say(f"the demonstration failed: {error}")
            return 1
        finally:
            story.end()
    return 0


def play(story: Story) -> Json:
    """The seven steps; raises StoryError where one does not come out right."""
    with story.step("1. train a small residual network on 1,000 rows of digits"):
        # On data of an earlier demonstration the same network would be the same upload.
        seed = story.versions_so_far() or 0
        story.train("good", "true", seed)
        good = story.trained("good")
        # The broken version trains while the good one is compressed.
        story.train("broken", "permuted", seed)
    with story.step("2. upload model and dataset; the server checks both"):
        story.make_model()
        version, dataset = story.upload(good, "trained on true labels")
    with story.step("3. compress it for the fleet's targets"):
        expect_met(story.compress(version, dataset))
    with story.step(f"4. enrol {len(PLACES)} devices; their applications start asking at once"):
        story.enrol(good / "field.json")
    with story.step("5. roll it out, one device first, then the rest of its group"):
        for rollout in [story.roll_out(version["version"], group) for group in ("workshop", "field")]:
            expect(story.finished(rollout), "succeeded")
    with story.step("6. wait for latency and labelled accuracy from the field"):
        story.reported(version["version"], MIN_LABELLED)
        devices = rows(story, version["version"])
    with story.step("7. roll out a broken version, trained and evaluated on permuted labels"):
        second, labels = story.upload(story.trained("broken"), "trained on permuted labels")
        expect_met(story.compress(second, labels))
        stopped = expect(story.finished(story.roll_out(second["version"], "field")), "rolled_back")
        broken = broken_version(story, stopped, version["version"])
        expect_contained(broken)
    return {"devices": devices, "broken_version": broken, "steps": story.steps}


def expect(rollout: Json, state: str) -> Json:
    """The rollout, which must have ended in this state."""
    if rollout["state"] != state:
        raise StoryError(f"rollout {rollout['id']} is {rollout['state']}, not {state}: {rollout['reason']}")
    return rollout


def expect_met(job: Json) -> None:
    """The job must have met its goals for every target."""
    if job["state"] != "succeeded":
        raise StoryError(f"job {job['id']} {job['state']}: {job['reason']}")
    for target, result in job["results"].items():
        if not result["met"]:
            raise StoryError(f"job {job['id']} did not meet its goal for {target}: {result['sentence']}")


def expect_contained(broken: Json) -> None:
    """The broken version must have reached one device only, and every device must be back on the good one."""
    wanted = {"stopped_by": ["device trial", "gate"], "exposed": 1, "restored": len(PLACES)}
    found = {name: broken[name] for name in wanted}
    if found != wanted:
        raise StoryError(f"the broken version was not contained: {found}, expected {wanted}")


def write(path: Path, outcome: Json) -> None:
    """Write `demo.json`, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(outcome, indent=2) + "\n")
    draft.replace(path)


def show(stack: Stack, console: Console, outcome: Json) -> None:
    """The table, what happened to the broken version, and where to look."""
    broken, admin = outcome["broken_version"], stack.admin
    lines = [
        f"The broken version was stopped by {' and '.join(broken['stopped_by'])}: {broken['exposed']} device "
        f"exposed, {broken['restored']} of {len(outcome['devices'])} run the good one.",
        *(f"  The gate: {verdict['sentence']}" for verdict in broken["evidence"]["gate"]),
        f"The story took {outcome['seconds']} s.",
        f"Dashboard: {stack.url}   user: {admin['username']}   password: {admin['password']}",
    ]
    wide = Console(file=console.file, width=max(console.width, TABLE_COLUMNS))
    wide.print(table(outcome["devices"]))
    for line in lines:
        console.print(Text(line), soft_wrap=True)
