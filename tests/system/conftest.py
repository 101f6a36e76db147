"""One running stack with six agents, on which the system tests play their stories."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.cli.client import Client
from fleet.cli.demo.agents import PLACES, Devices
from fleet.cli.demo.story import Json, Story
from fleet.cli.stack import FREE, Stack

# Every poll of the API would be a line in the report of a failed test.
logging.getLogger("httpx").setLevel(logging.WARNING)
# Tests of one stack must run in one worker, one after the other.
STACK_GROUP = pytest.mark.xdist_group("stack")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as system tests of one group."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            # The first test of a stack waits for its whole story, which a busy machine tells slowly.
            item.add_marker(pytest.mark.timeout(900))


class Fleet:
    """A stack, its API, and the story told so far on it."""

    def __init__(self, stack: Stack, api: Client, story: Story) -> None:
        self.stack = stack
        self.api = api
        self.story = story

    def upload(self, name: str) -> tuple[int, int]:
        """Upload a version that was trained meanwhile; returns the numbers of version and dataset."""
        version, dataset = self.story.upload(self.story.trained(name), name)
        return int(version["version"]), int(dataset["id"])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The embedded stack on free ports."""
    var = tmp_path_factory.mktemp("stack")
    said: list[str] = []
    with Stack(var, FREE, say=said.append) as running:
        yield running
    keep = os.environ.get("KEEP_SYSTEM_LOGS")
    if keep:
        shutil.copytree(var, keep, dirs_exist_ok=True)


def compressed(story: Story, version: Json, dataset: Json) -> None:
    """Compress a version for every target of the fleet."""
    job = story.compress(version, dataset)
    assert job["state"] == "succeeded", job["reason"]


@pytest.fixture(scope="session")
def fleet(stack: Stack) -> Iterator[Fleet]:
    """Six devices that run version 1 of the digits; version 2 is as good and compressed, too."""
    with Client(stack.url, stack.token) as api:
        story = Story(api, stack.var / "demo", Devices(stack.var / "devices", stack.url), lambda line: None)
        try:
            story.train("good", "true", 0)
            good = story.trained("good")
            story.train("healthy", "true", 7)
            story.make_model()
            version, dataset = story.upload(good, "good")
            compressed(story, version, dataset)
            story.enrol(good / "field.json")
            for rollout in [story.roll_out(1, group) for group in sorted({p.group for p in PLACES})]:
                assert story.finished(rollout)["state"] == "succeeded"
            story.train("shuffled", "shuffled", 0)
            compressed(story, *story.upload(story.trained("healthy"), "healthy"))
            yield Fleet(stack, api, story)
        finally:
            story.end()
