"""A real agent process fetches a large artifact, dies in the middle, and goes on where it was: by MQTT and by HTTP."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from django.core.asgi import get_asgi_application
from django.utils import timezone
from onnx import TensorProto, helper, numpy_helper

from device_agent import config
from device_agent.core import protocol
from fleet.accounts.roles import Role
from fleet.gateway.service import Gateway
from fleet.inventory import enrolment
from fleet.inventory.credentials import device_credentials
from fleet.inventory.models import BrokerGrant
from fleet.registry.models import Artifact, BlobOffer
from fleet.rollouts import engine
from fleet.rollouts import services as rollouts
from fleet.rollouts.models import Delivery, Intent
from tests.device_agent.server import CLASSES, self_test
from tests.factories import SIGNATURE, ArtifactFactory, DeviceFactory, GroupFactory, UserFactory
from tests.fleet.gateway.conftest import Client, work
from tests.services import until

CHUNK = 4096
WIDTH = 8500
FIRST_PART, FLIPPED = 40, 21
REQUEST = 8 * CHUNK
AWAY_AFTER = 2
ROOT = Path(__file__).parents[3]
Agents = Callable[[], "subprocess.Popen[bytes]"]


def large_model() -> bytes:
    """A model of about 50 chunks; it answers eight times its input, as the self-test expects."""
    wide = np.random.default_rng(0).standard_normal((CLASSES, WIDTH)).astype(np.float32)
    wide[:, :CLASSES] = 8 * np.eye(CLASSES)
    back = np.eye(WIDTH, CLASSES, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["scores"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CLASSES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(wide, "w"), numpy_helper.from_array(back, "v")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


class Site:
    """One enrolled agent, and an artifact on its way to it."""

    def __init__(self, gateway: Gateway, state: Path) -> None:
        self.gateway = gateway
        self.state = state
        group = GroupFactory(slug="site")
        edges = {"inputs": [edge("x")], "outputs": [edge("scores")]}
        self.artifact: Artifact = ArtifactFactory(
            content=large_model(), self_test=self_test(), signature=SIGNATURE | edges, chunk_bytes=CHUNK
        )
        order = enrolment.TokenOrder(target="raspberry-pi-4", groups=["site"])
        _, text = enrolment.create_token(UserFactory(roles=[Role.ADMIN]), order, timezone.now())
        config.save(state, enrolment.enrol(text, "pi-1", timezone.now()))
        work(gateway, "the grant", lambda: not BrokerGrant.objects.filter(due=True).exists())
        user = UserFactory(roles=[Role.OPERATOR])
        rules = {"trial": {"min_inferences": 0, "min_labelled": 0, "max_seconds": 1}}
        rollout = rollouts.create(user, version=self.artifact.version, group=group, rules=rules)
        rollouts.start(user, rollout)
        engine.tick(timezone.now())
        work(gateway, "the outbox", self.sent)

    @staticmethod
    def sent() -> bool:
        """Whether nothing waits any more."""
        return not (Intent.objects.filter(due=True).exists() or BlobOffer.objects.filter(due=True).exists())

    def topics(self) -> list[str]:
        """The chunks of the artifact, in order."""
        count = protocol.chunk_count(self.artifact.transport_bytes, CHUNK)
        return [protocol.chunk_topic(self.artifact.transport_sha256, CHUNK, n) for n in range(count)]

    def withdraw(self, topics: list[str]) -> None:
        """Let the broker forget chunks."""
        self.gateway.broker.publish([(topic, b"", True) for topic in topics])

    def received(self) -> int:
        """How many bytes of the artifact the device has on its disk."""
        return max((path.stat().st_size for path in self.state.glob("main.?.model")), default=0)

    def log(self) -> str:
        """What the agent said."""
        path = self.state.parent / "agent.log"
        return path.read_text() if path.exists() else ""

    def ended(self) -> bool:
        """Whether the server knows how the delivery ended."""
        return Delivery.objects.get().state in ("succeeded", "failed", "rejected", "rolled_back")


def edge(name: str) -> dict[str, Any]:
    """One input or output of the model."""
    return {"name": name, "dtype": "float32", "shape": [1, CLASSES], "scale": None, "zero_point": None}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agents]:
    """Starts the agent's process, and kills it at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "device_agent", "run", "--state", str(tmp_path / "state")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        log = (tmp_path / "agent.log").open("ab")
        started.append(subprocess.Popen(command, stderr=log, env=environment, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def kill(process: "subprocess.Popen[bytes]") -> None:
    """As when the plug is pulled."""
    process.kill()
    process.wait()


@pytest.fixture
def onlooker(gateway: Gateway, connect: Any) -> Client:
    """Another device, which sees what is published."""
    BrokerGrant.objects.create(device=DeviceFactory(name="pi-2"))
    work(gateway, "the grant", lambda: not BrokerGrant.objects.filter(due=True).exists())
    clients: list[Client] = []

    def connected() -> bool:
        if not clients or clients[-1].refused:
            clients.append(connect(device_credentials("pi-2", 1)))
        return clients[-1].connected

    until("the onlooker", connected)
    return clients[-1]


def seen(onlooker: Client) -> set[int]:
    """Numbers of the chunks that were published since it was last cleared."""
    return {protocol.parse_chunk_topic(topic)[2] for topic, payload in list(onlooker.got) if payload}


@pytest.mark.django_db
def test_by_mqtt_a_device_that_disappears_gets_only_what_it_misses_and_a_flipped_chunk_again(
    gateway: Gateway, agent: Agents, onlooker: Client, tmp_path: Path
) -> None:
    site = Site(gateway, tmp_path / "state")
    topics = site.topics()
    site.withdraw(topics[FIRST_PART:])
    gateway.broker.publish([(topics[FLIPPED], bytes(CHUNK), True)])
    assert onlooker.subscribe(*topics)
    until("all that the broker holds", lambda: len(seen(onlooker)) == FIRST_PART)
    onlooker.got.clear()
    process = agent()
    work(gateway, "the flipped chunk", lambda: seen(onlooker), 60)
    assert seen(onlooker) == {FLIPPED}
    # From here on nobody answers for what is missing.
    until("the first part", lambda: site.received() == FIRST_PART * CHUNK, 60)
    kill(process)
    whole = site.received() // CHUNK
    assert whole < len(topics)
    site.withdraw(topics)
    onlooker.got.clear()
    agent()
    work(gateway, "the end", site.ended, 90)
    assert Delivery.objects.get().state == "succeeded", site.log()
    assert seen(onlooker) == set(range(whole, len(topics)))


class Web:
    """The server in front of a device, which notes the ranges and is away when it is told to be."""

    def __init__(self) -> None:
        self.application = get_asgi_application()
        self.starts: list[int] = []
        self.away_after = AWAY_AFTER

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, or hang up in the middle of the answer."""
        if scope["type"] != "http":
            return
        asked = re.match(rb"bytes=(\d+)-", dict(scope["headers"]).get(b"range", b""))
        assert asked
        if len(self.starts) >= self.away_after:
            await send(
                {"type": "http.response.start", "status": 206, "headers": [(b"content-length", b"9999")]}
            )
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            return
        self.starts.append(int(asked[1]))
        await self.application(scope, receive, send)


@pytest.fixture
def web(settings: Any) -> Iterator[Web]:
    """A real web server, from which artifacts of any size are fetched."""
    made = Web()
    server = uvicorn.Server(uvicorn.Config(made, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until("uvicorn", lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    settings.PUBLIC_URL = f"http://127.0.0.1:{port}"
    settings.BLOB_MQTT_MAX_BYTES = 100_000
    yield made
    server.should_exit = True
    thread.join()


@pytest.mark.django_db(transaction=True)
def test_by_http_a_device_that_disappears_goes_on_with_the_range_it_misses(
    gateway: Gateway, agent: Agents, web: Web, tmp_path: Path
) -> None:
    site = Site(gateway, tmp_path / "state")
    assert not BlobOffer.objects.filter(sha256=site.artifact.transport_sha256).exists()
    process = agent()
    work(gateway, "what came before the server hung up", lambda: site.received() >= 2 * REQUEST, 60)
    kill(process)
    assert web.starts == [0, REQUEST]
    assert site.received() == 2 * REQUEST
    web.away_after = 10**6
    agent()
    work(gateway, "the end", site.ended, 90)
    assert Delivery.objects.get().state == "succeeded", site.log()
    assert web.starts == list(range(0, site.artifact.transport_bytes, REQUEST))
