"""A whole delivery on a board: the agent in the MicroPython VM, a real broker, a plan of 300 KB."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.compiled import MODULES, ROOT, compile_agent, described, sizes
from device_agent.core import protocol
from tests.device_agent import board
from tests.device_agent.core.test_in_micropython import micropython
from tests.device_agent.server import Server
from tests.device_agent.transports.certificates import certificate
from tests.device_agent.transports.conftest import Broker
from tests.device_agent.transports.test_paho import peer
from tests.device_agent.transports.test_umqtt import Authority, Mosquitto, secure_broker
from tests.services import free_port, until

HEAP_KB = 128
# With a second model beside the one that answers. Over TLS certificates and contexts lie in this heap; what mbedTLS
# allocates does not, in the Unix port.
BESIDE_KB = 144
# Enough for either of two models, and not for both.
ONE_KB = 120
KB = 1024
AGENT = ROOT / "device_agent"
# Bytes of code, what is free beside it, and bytes of the connected agent.
MEASURE = """
import gc, sys
gc.collect(); start = gc.mem_alloc()
from device_agent.board_host import PlanRuntime, open_agent, run
gc.collect(); code, free = gc.mem_alloc() - start, gc.mem_free()
agent = open_agent(sys.argv[1], PlanRuntime())
run(agent, None, lambda: not agent.status()["online"])
gc.collect(); print(code, free, gc.mem_alloc() - start - code)
"""
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
        self.server = Server(self._publish, "pi-1", 4096)
        self.sent: list[int] = []
        self.said: list[tuple[str, dict[str, Any]]] = []

    def _publish(self, topic: str, payload: bytes) -> None:
        self.sent.append(self.transport.publish(topic, payload, 1, True))

    def stored(self) -> None:
        """Wait for the broker: one in 300 that subscribes meanwhile misses a message of the embedded one, and is offered it again by a real server."""
        until("what was sent to be stored", lambda: all(map(self.transport.acknowledged, self.sent)))

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


def offer(fleet: Fleet, config: dict[str, Any], folder: Path) -> list[str]:
    """Publish a plan of 300 KB for a board; returns the arguments of the board's agent, with its application."""
    plan = board.dense_plan()
    assert len(plan) > 300_000
    state, lines = folder / "state", folder / "rows.jsonl"
    board.provision(state, config)
    board.write_rows(lines, plan)
    trial = {"min_inferences": 20, "min_labelled": 10, "accuracy_floor": 0.9, "max_seconds": 60}
    fleet.server.deliver(plan, board.TARGET, trial, "plan", board.self_test(plan, folder))
    fleet.stored()
    return ["--state", str(state), "--rows", str(lines), "--rate", "50"]


def deliver(fleet: Fleet, config: dict[str, Any], code: Path, folder: Path, heap_kb: int) -> None:
    """Install a plan of 300 KB on a board, try it, see it report, and then replace it with another."""
    with board.running(code, *offer(fleet, config, folder), heap=f"{heap_kb}k"):
        outcome = fleet.outcome()
        assert outcome["state"] == "succeeded", outcome
        assert outcome["evidence"]["correct"] == outcome["evidence"]["labelled"] >= 10
        report = fleet.until(
            "a labelled report", "report", lambda sent: sent["phase"] == "live" and sent["labelled"]
        )
        assert min(report["n"], report["heap_free_min"]) > 0
        fleet.said.clear()
        other = board.dense_plan(seed=2)
        fleet.server.deliver(other, board.TARGET, None, "plan", board.self_test(other, folder))
        assert fleet.outcome()["state"] == "succeeded", fleet.said


def test_a_300_kb_plan_is_installed_tried_committed_reported_and_replaced_within_a_heap_of_128_kb(
    broker: Broker, fleet: Fleet, code: Path, tmp_path: Path
) -> None:
    deliver(fleet, broker.config(), code, tmp_path, HEAP_KB)


@pytest.mark.full
def test_killed_on_the_way_it_still_ends_well(
    broker: Broker, fleet: Fleet, code: Path, tmp_path: Path
) -> None:
    command = offer(fleet, broker.config(), tmp_path)
    command[-1] = "5"  # rows a second: the trial takes four
    kills = 0
    for state in protocol.PROGRESS:
        if not any(message.get("state") == state for _, message in fleet.said):  # an earlier kill came late
            with board.running(code, *command, heap=f"{HEAP_KB}k"):
                fleet.until(state, "status", lambda message, state=state: message.get("state") == state)  # type: ignore[misc]
            kills += 1
    with board.running(code, *command, heap=f"{HEAP_KB}k"):
        assert fleet.outcome()["state"] == "succeeded"
    assert kills >= 2


def shadowed(
    fleet: Fleet, config: dict[str, Any], code: Path, tmp_path: Path, heap_kb: int
) -> dict[str, Any]:
    """How a second plan of 300 KB ends in the shadow of the first."""
    plan, other = board.dense_plan(), board.dense_plan(seed=2)
    state, lines = tmp_path / "state", tmp_path / "rows.jsonl"
    board.provision(state, config)
    board.write_rows(lines, plan)
    fleet.server.deliver(plan, board.TARGET, None, "plan", board.self_test(plan, tmp_path))
    fleet.stored()
    rules = {
        "min_inferences": 10,
        "min_labelled": 5,
        "accuracy_floor": 0.01,
        "max_seconds": 60,
        "shadow": True,
    }
    command = ["--state", str(state), "--rows", str(lines), "--rate", "50"]
    with board.running(code, *command, heap=f"{heap_kb}k"):
        assert fleet.outcome()["state"] == "succeeded"
        fleet.said.clear()
        fleet.server.deliver(other, board.TARGET, rules, "plan", board.self_test(other, tmp_path))
        return fleet.outcome()


def test_a_plan_in_the_shadow_is_compared_with_the_one_that_answers(
    broker: Broker, fleet: Fleet, code: Path, tmp_path: Path
) -> None:
    outcome = shadowed(fleet, broker.config(), code, tmp_path, BESIDE_KB)
    assert (outcome["state"], outcome["shadow"]) == ("succeeded", True), outcome
    evidence = outcome["evidence"]
    assert evidence["compared"] >= 10
    assert evidence["agreed"] < evidence["compared"]
    assert evidence["old_correct"] == evidence["labelled"] >= 5 > evidence["correct"]


def test_a_heap_without_room_for_a_shadow_is_said(
    broker: Broker, fleet: Fleet, code: Path, tmp_path: Path
) -> None:
    outcome = shadowed(fleet, broker.config(), code, tmp_path, ONE_KB)
    assert (outcome["state"], outcome["shadow"]) == ("failed", True), outcome
    assert "in the shadow: the heap has no room for both models" in outcome["reason"]


def test_the_same_by_mosquitto_over_tls_with_a_client_certificate(code: Path, tmp_path: Path) -> None:
    authority, plain_port = Authority(tmp_path), free_port()
    files = authority.server("right", "localhost")
    with Mosquitto(tmp_path, files, plain_port).running() as broker:
        config = broker.config(broker=authority.trusted())
        broker.port = plain_port  # the server's side stays on this machine
        with peer(broker, *TOPICS) as transport:
            deliver(Fleet(transport), config, code, tmp_path, BESIDE_KB)


class Trusting:
    """A broker as those see it that trust an authority and show no certificate."""

    def __init__(self, broker: Broker, address: dict[str, Any]) -> None:
        self.broker, self.address = broker, address

    def config(self, **changes: Any) -> dict[str, Any]:
        """The broker's part of a provisioning file."""
        return self.broker.config(broker=self.address, **changes)


@pytest.mark.full
def test_the_same_by_the_embedded_broker_over_tls(code: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    made = Broker(tmp_path, authority.server("right", "localhost"))
    made.start()
    seen = Trusting(made, authority.trusted(client=False))
    try:
        with peer(seen, *TOPICS) as transport:  # type: ignore[arg-type]
            deliver(Fleet(transport), seen.config(), code, tmp_path, BESIDE_KB)
    finally:
        made.stop()


@pytest.mark.full
def test_the_same_by_mosquitto(code: Path, tmp_path: Path) -> None:
    with Mosquitto(tmp_path).running() as broker, peer(broker, *TOPICS) as transport:  # type: ignore[arg-type]
        deliver(Fleet(transport), broker.config(), code, tmp_path, HEAP_KB)


@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
def test_the_agent_comes_online_only_where_both_sides_know_each_other(
    kind: str, code: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    other = Path(certificate(tmp_path, "other", "localhost")[1]["cert_file"]).read_text()
    good = authority.trusted()
    state = tmp_path / "state"
    with secure_broker(kind, tmp_path, authority.server("right", "localhost")) as broker:

        def first_words(**changes: Any) -> str:
            board.provision(state, broker.config(broker={**good, **changes}))
            with board.running(code, "--state", str(state), heap=f"{HEAP_KB}k") as process:
                assert process.stdout is not None
                return process.stdout.readline()

        assert first_words() == "connected to the broker\n"
        assert "not correctly signed by the trusted CA" in first_words(ca=other)
        assert "does not match" in first_words(host="127.0.0.1")
        assert first_words(certificate=None).startswith("no connection to the broker: ")


def test_the_core_that_stays_in_memory_has_24_kb_and_its_steps_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "device_agent" / "core").mkdir(
        parents=True
    )  # as an earlier layout left it; it would hide core.mpy
    (tmp_path / "device_agent" / "core" / "agent.mpy").write_bytes(b"old")
    compile_agent(tmp_path, board.TARGET)
    found = sizes(tmp_path)
    print(described(board.TARGET, found))
    assert list(found["core"]) == ["core.mpy"]
    assert sum(found["core"].values()) <= 24 * KB
    assert sum(found["interpreter"].values()) <= 16 * KB
    # Loaded one or a few at a time: no file of a step may weigh more than what a board has free for it.
    assert max(found["steps"].values()) <= 5 * KB
    assert sum(found["steps"].values()) <= 27 * KB
    assert not (tmp_path / "device_agent" / "core").exists()


def test_the_idle_agent_is_small_and_a_delivery_peaks_below_64_kb_over_the_arena(
    broker: Broker, code: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    board.provision(tmp_path / "state", broker.config())
    script = tmp_path / "measure.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(code)!r})\n" + MEASURE)
    command = [micropython(), "-X", f"heapsize={HEAP_KB}k", str(script), str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded, free, idle = (int(word) for word in done.stdout.split()[-3:])
    print(
        f"in the VM of 64-bit words: {loaded} bytes of code, {free} free beside it, {idle} of the idle agent"
    )
    record_property("idle_heap_bytes", idle)
    record_property("peak_heap_bytes_beside_code_at_most", free)
    assert idle <= 40 * KB
    # The delivery above had no more than this beside the code: for the agent, the application and the model's arena.
    assert free <= 64 * KB


def test_the_manifest_names_every_file_a_board_needs() -> None:
    listed: list[str] = []
    words = {"metadata": lambda **facts: None, "package": lambda name, files, **options: listed.extend(files)}
    exec((AGENT / "manifest.py").read_text(), words)
    core = {f"core/{path.name}" for path in (AGENT / "core").glob("*.py")}
    assert core == {name for name in listed if name.startswith("core/")}
    beside = {"device_agent." + name.removesuffix(".py").replace("/", ".") for name in set(listed) - core}
    assert set(MODULES) <= beside
    assert all((AGENT / name).exists() for name in listed)
