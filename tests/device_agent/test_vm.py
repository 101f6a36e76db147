"""A whole delivery on a board: the agent in the MicroPython VM, a real broker, a plan of 300 KB."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.compiled import compile_agent
from device_agent.core import protocol
from tests.device_agent import board
from tests.device_agent.server import Server
from tests.device_agent.transports.conftest import Broker
from tests.device_agent.transports.test_paho import peer
from tests.services import until

# What a board with 128 KB of heap has: the VM counts in words of 64 bits, boards in words of 32.
HEAP = "128wk"
TOPICS = [protocol.device_topic("pi-1", leaf) for leaf in ("hello", "status", "report", "presence")]


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as a board gets it."""
    folder = tmp_path_factory.mktemp("agent")
    compile_agent(folder, "unix")
    return folder


class Fleet:
    """The server's side: publishes deliveries and keeps what the device says."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.server = Server(lambda topic, payload: transport.publish(topic, payload, 1, True), "pi-1", 4096)
        self.said: list[tuple[str, dict[str, Any]]] = []

    def listen(self) -> None:
        """Keep what came."""
        self.transport.wait(50)
        while (message := self.transport.receive()) is not None:
            self.said.append((message[0].rsplit("/", 1)[1], json.loads(message[1])))

    def until(self, what: str, leaf: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message of that kind that fits."""

        def look() -> list[dict[str, Any]]:
            self.listen()
            return [message for kind, message in self.said if kind == leaf and fits(message)]

        until(what, look)
        return look()[0]

    def outcome(self) -> dict[str, Any]:
        """How the delivery ended."""
        return self.until("the end", "status", lambda message: message.get("state") in protocol.ENDS)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def fleet(broker: Broker) -> Iterator[Fleet]:
    with peer(broker, *TOPICS) as transport:
        yield Fleet(transport)


def test_a_300_kb_plan_is_installed_tried_committed_and_reported(
    broker: Broker, fleet: Fleet, code: Path, tmp_path: Path
) -> None:
    plan = board.dense_plan()
    assert len(plan) > 300_000
    state, lines = tmp_path / "state", tmp_path / "rows.jsonl"
    board.provision(state, broker.config())
    board.write_rows(lines, plan)
    trial = {"min_inferences": 20, "min_labelled": 10, "accuracy_floor": 0.9, "max_seconds": 60}
    test = board.self_test(plan, tmp_path)
    fleet.server.deliver(plan, board.TARGET, trial, "plan", test)
    command = ["--state", str(state), "--rows", str(lines), "--rate", "50"]
    with board.running(code, *command, heap=HEAP):
        outcome = fleet.outcome()
        assert outcome["state"] == "succeeded", outcome
        assert outcome["evidence"]["correct"] == outcome["evidence"]["labelled"] >= 10
        report = fleet.until("a report", "report", lambda message: message["phase"] == "live")
        assert min(report["n"], report["labelled"], report["heap_free_min"]) > 0
