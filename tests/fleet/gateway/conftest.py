"""A real broker on a free port, a gateway that the test steps by hand, and clients that play devices."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pytest_django import Settings

from device_agent.core import protocol
from fleet.cli import embedded
from fleet.gateway import nats_file
from fleet.gateway.service import Gateway
from fleet.inventory.credentials import Credentials
from tests.services import free_port, listens, until

PATIENCE_SECONDS = 20.0


class Nats:
    """The embedded broker; can be stopped, robbed of its disk, and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.users = folder / "users.conf"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        text = embedded.nats_config(self.folder, "127.0.0.1", self.port, self.users)
        # What was not acknowledged comes again after a second instead of ten.
        config.write_text(text.replace(f"ack_wait: {embedded.MQTT_ACK_WAIT}", "ack_wait: 1s"))
        self.process = subprocess.Popen(
            [embedded.nats_binary(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until("the broker", lambda: listens(self.port))

    def stop(self) -> None:
        """Stop, and wait until it is gone."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def lose_disk(self) -> None:
        """Throw away everything it remembers."""
        shutil.rmtree(self.folder / "store")


class Client:
    """What a device, or somebody who pretends to be one, does with the broker."""

    def __init__(self, port: int, mine: Credentials) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.refused: list[str] = []
        self.thrown_off = 0
        self.answers: list[bool] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=mine.client_id, clean_session=True)
        self.client.username_pw_set(mine.username, mine.password)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = lambda *args: self.answers.append(any(r.is_failure for r in args[3]))
        self.client.on_message = lambda _, __, m: self.got.append((m.topic, bytes(m.payload)))
        self.client.reconnect_delay_set(30, 30)
        self.client.connect("127.0.0.1", port, 20)
        self.client.loop_start()

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        if reason.is_failure:
            self.refused.append(str(reason))

    def _on_disconnect(self, *args: Any) -> None:
        self.thrown_off += 1

    @property
    def connected(self) -> bool:
        """Whether the broker let it in."""
        return self.client.is_connected()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish with QoS 1 and wait for the acknowledgement."""
        self.client.publish(topic, payload, 1, retain).wait_for_publish(10)

    def subscribe(self, *topics: str) -> bool:
        """Subscribe; whether the broker granted all of it."""
        before = len(self.answers)
        self.client.subscribe([(topic, 1) for topic in topics])
        until("a SUBACK", lambda: len(self.answers) > before)
        return not self.answers[-1]

    def say(self, device: str, leaf: str, message: dict[str, Any], retain: bool = False) -> None:
        """Publish one message of the protocol."""
        self.publish(protocol.device_topic(device, leaf), protocol.encode(dict(message)), retain)

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()


def work(gateway: Gateway, what: str, look: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Let the gateway take its steps until `look` is true."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what}")
        gateway.send_once()
        gateway.receive_once(0.05)


@pytest.fixture
def broker(tmp_path: Path, settings: Settings) -> Iterator[Nats]:
    """A running broker that lets only the gateway in so far."""
    nats = Nats(tmp_path / "broker")
    settings.VAR = tmp_path
    settings.KEYS_DIR = tmp_path / "keys"
    settings.MQTT_URL = f"mqtt://127.0.0.1:{nats.port}"
    settings.MQTT_HOST, settings.MQTT_PORT, settings.MQTT_TLS = "127.0.0.1", nats.port, False
    settings.MQTT_DEVICE_HOST, settings.MQTT_DEVICE_PORT = "127.0.0.1", nats.port
    settings.BROKER_GRANTS = f"nats-file:{nats.users}"
    nats_file.write(nats.users)
    nats.start()
    yield nats
    nats.stop()


@pytest.fixture
def gateway(db: None, broker: Nats) -> Iterator[Gateway]:
    """A connected gateway."""
    made = Gateway()
    made.broker.start()
    work(made, "the gateway's connection", lambda: made.broker.connected)
    yield made
    made.close()


@pytest.fixture
def connect(broker: Nats) -> Iterator[Callable[[Credentials], Client]]:
    """Connects clients, and closes them at the end."""
    clients: list[Client] = []

    def open_client(mine: Credentials) -> Client:
        clients.append(Client(broker.port, mine))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()
