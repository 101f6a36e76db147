"""The same story on PostgreSQL, Redis and Mosquitto, and a database that goes away in the middle."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.core.protocol import open_manifest
from fleet.cli.client import ApiError, Client
from fleet.cli.demo.agents import Devices
from fleet.cli.demo.story import GOALS, MODEL, Story, wait_for
from fleet.cli.stack import FREE, Stack
from tests.services import mosquitto, postgresql, redis_server

pytestmark = pytest.mark.xdist_group("production")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose database, queue and broker are the ones of a production site."""
    folder = tmp_path_factory.mktemp("production")
    with (
        postgresql(folder) as database,
        redis_server(folder / "redis") as redis,
        mosquitto(folder / "mqtt") as mqtt,
    ):
        env = {"DATABASE_URL": database, "REDIS_URL": redis, "MQTT_URL": mqtt, "BROKER_GRANTS": "dynsec"}
        # Every artifact is too large for the broker, so devices fetch it in ranges from the web server.
        env |= {"BLOB_MQTT_MAX_BYTES": "4096"}
        with Stack(folder / "var", FREE, env=env) as stack:
            yield stack


def one_device(story: Story, name: str, rows: Path) -> None:
    """Enrol one device and start its agent and its application."""
    body = {"target": "raspberry-pi-4", "groups": ["site"], "report_s": 2}
    token = story.api.post("/enrolment-tokens", body)["token"]
    story.devices.start_agent(name, token)
    story.devices.start_workload(name, rows, rate=20)


def test_the_story_on_production_services_and_no_report_lost_with_the_database(production: Stack) -> None:
    with Client(production.url, production.token) as api:
        story = Story(
            api, production.var / "story", Devices(production.var / "devices", production.url), print
        )
        try:
            play(story)
            lose_the_database(story, production)
        finally:
            story.end()


def play(story: Story) -> None:
    """Upload, compress, enrol two devices, roll out."""
    story.train("good", "true", 0)
    good = story.trained("good")
    story.make_model()
    version, dataset = story.upload(good, "good")
    story.api.post("/groups", {"slug": "site", "name": "Site"})
    for name in ("one", "two"):
        one_device(story, name, good / "field.json")
    goals = {"targets": ["raspberry-pi-4"], **GOALS}
    body = {"model": MODEL, "version": version["version"], "dataset": dataset["id"], "goals": goals}
    job = story.api.post("/jobs", body)["id"]
    wait_for("the job", lambda: story.api.get(f"/jobs/{job}")["state"] == "succeeded" or None, 120)
    rollout = story.finished(story.roll_out(1, "site"))
    assert rollout["state"] == "succeeded", rollout["reason"]
    signed = (story.devices.state_folder("one") / "main.manifest").read_bytes()
    assert "token=one." in json.loads(open_manifest(signed)[2])["transport"]["url"]


def lose_the_database(story: Story, stack: Stack) -> None:
    """Crash PostgreSQL under the gateway's hands; afterwards the report numbers have no hole."""
    reports = lambda: sorted(r["sequence"] for r in story.api.items("/devices/one/reports"))  # noqa: E731
    wait_for("reports", lambda: len(reports()) > 1 or None, 60)
    before = max(reports())
    crash(stack.var.parent)
    wait_for("the database", lambda: answers(story.api) or None, 90)
    wait_for("later reports", lambda: max(reports()) > before + 2 or None, 60)
    numbers = reports()
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def crash(folder: Path) -> None:
    """Kill every server process that holds a connection: PostgreSQL then drops all and recovers."""
    postmaster = (folder / "postgresql" / "postmaster.pid").read_text().splitlines()[0]
    children = (Path("/proc") / postmaster / "task" / postmaster / "children").read_text().split()
    clients = [pid for pid in children if b": tinyfleet" in (Path("/proc") / pid / "cmdline").read_bytes()]
    assert clients
    for pid in clients:
        os.kill(int(pid), signal.SIGKILL)


def answers(api: Client) -> bool:
    """Whether the API can reach its database."""
    try:
        api.get("/devices/one")
    except ApiError as refusal:
        print(refusal)  # pytest shows it if the database never comes back
        return False
    return True
