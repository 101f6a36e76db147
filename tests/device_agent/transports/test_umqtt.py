"""The board's own MQTT client against real brokers, in CPython and in the MicroPython VM, plain and over TLS."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.host import SystemClock
from device_agent.transports.umqtt import UmqttTransport
from tests.device_agent.core.test_in_micropython import ROOT, micropython
from tests.device_agent.transports.certificates import certificate
from tests.device_agent.transports.conftest import Broker
from tests.device_agent.transports.test_paho import COMMAND, PRESENCE, REPORT, peer, received
from tests.device_agent.transports.umqtt_scenario import CHUNKS, READY
from tests.services import free_port, installed, running, until

# The client, the scenario compiled from source, and copies of chunks to compare.
HEAP = "heapsize=192k"


class Device:
    """Runs scenarios in one of the interpreters."""

    def __init__(self, interpreter: str, folder: Path) -> None:
        self.vm = interpreter == "micropython"
        self.command = [micropython(), "-X", HEAP] if self.vm else [sys.executable]
        self.config_file = folder / "config.json"

    @contextmanager
    def running(self, scenario: str, config: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
        """The process while the scenario runs."""
        self.config_file.write_text(json.dumps(config))
        command = [
            *self.command,
            "tests/device_agent/transports/umqtt_scenario.py",
            scenario,
            str(self.config_file),
        ]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, scenario: str, config: dict[str, Any]) -> Any:
        """What the scenario found out."""
        with self.running(scenario, config) as process:
            return answer(process)


def answer(process: "subprocess.Popen[str]") -> Any:
    """The JSON the scenario prints."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    return json.loads(out)


@pytest.fixture(params=["cpython", "micropython"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    return Device(request.param, tmp_path)


@pytest.fixture
def vm(tmp_path: Path) -> Device:
    return Device("micropython", tmp_path)


def conversation(device: Device, broker: Any, **changes: Any) -> None:
    """Reports arrive, chunks come in order, a command is taken, and the end is said."""
    with peer(broker, REPORT, READY, PRESENCE) as server:
        sent = [server.publish(topic, (topic.encode() * 500)[:4096], 1, True) for topic in CHUNKS]
        # Before that the embedded broker may send one twice: as it comes in, and as a retained message.
        until("the chunks to be stored", lambda: all(server.acknowledged(token) for token in sent))
        with device.running("talk", broker.config(**changes)) as process:
            messages = received(server, 21)
            # The embedded broker keeps the order of one topic, not of two.
            assert (READY, b"") in messages
            reports = [payload for topic, payload in messages if topic == REPORT]
            assert reports == [b"%d" % i * 900 for i in range(20)]
            server.publish(COMMAND, b"now", 1)
            assert answer(process) == {"chunks": True, "command": [COMMAND, "now"], "unknown": False}
        assert received(server, 1) == [(PRESENCE, b"offline")]


def test_a_device_reports_fetches_chunks_and_takes_commands(device: Device, broker: Broker) -> None:
    conversation(device, broker)


def test_a_wrong_password_is_said(device: Device, broker: Broker) -> None:
    reason = device.run("refused", broker.config(password="wrong"))["reason"]
    assert reason.startswith("the broker refused this device: ")


def test_a_lost_broker_is_noticed_and_a_new_connection_works(device: Device, broker: Broker) -> None:
    with peer(broker, REPORT) as server, device.running("lost", broker.config()) as process:
        assert received(server, 1) == [(REPORT, b"before")]
        broker.stop()
        broker.start()
        found = answer(process)
    assert found["reason"]
    assert found["refusal"] == found["reason"]
    assert not found["stale"]


def test_pings_keep_a_quiet_connection_up(vm: Device, broker: Broker) -> None:
    # The keep-alive time of the scenarios is one second.
    assert vm.run("quiet", broker.config()) == {"connected": True}


def test_a_device_that_dies_leaves_its_will(vm: Device, broker: Broker) -> None:
    with peer(broker, PRESENCE, READY) as server:
        with vm.running("talk", broker.config()):
            assert received(server, 1) == [(READY, b"")]
        assert received(server, 1) == [(PRESENCE, b"gone")]


@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x05", b"\x20\xff\xff\xff\xff", b""]
)
def test_something_that_is_no_broker_ends_as_a_reason(vm: Device, words: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = {"host": "127.0.0.1", "port": listener.getsockname()[1], "tls": False, "ca": None}
        config = {"broker": address, "client_id": "c", "username": "u", "password": "p"}
        with vm.running("refused", config) as process:
            connection, _ = listener.accept()
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            found = answer(process)
            connection.close()
    assert found["reason"]
    assert found["connected"] is False


class FullHeap:
    """A stream that finds no heap for the second write of a packet."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.writes = 0

    def write(self, data: bytes) -> int:
        self.writes += 1
        if self.writes == 2:
            raise MemoryError("memory allocation failed")
        return int(self.stream.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def test_half_a_packet_is_not_followed_by_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = {"host": "127.0.0.1", "port": listener.getsockname()[1], "tls": False, "ca": None}
        config = {"broker": address, "client_id": "c", "username": "u", "password": "p"}
        client = UmqttTransport(config, SystemClock())
        client.connect("will", b"", 1)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"\x20\x02\x00\x00")
            until("the CONNACK", client.connected)
            client._stream = FullHeap(client._stream)
            with pytest.raises(MemoryError):
                client.publish("t", bytes(3000), 1)
            assert not client.connected()
            assert client.failure() == "memory allocation failed"
    client.disconnect(False)


def nonsense() -> list[bytes]:
    """What a broker may send after its CONNACK: packets of odd lengths and kinds, huge ones, damaged ones."""
    chance = random.Random(5)
    message = b"\x32\x09\x00\x01t\x00\x07body"
    made = [
        b"\x30\x02\x00\x09",  # a topic longer than its packet
        b"\x30\x00",
        b"\x36\x09\x00\x01t\x00\x07body",  # quality of service 3
        b"\x30\x05\x00\x02\xff\xfe!",  # a topic that is no UTF-8
        b"\x40\x00" + b"\x40\x01\x00" + b"\x40\x02\xff\xff" + b"\x40\x03\x00\x01\x02",
        b"\x20\x02\x00\x00" * 50 + b"\x90\x00" + b"\xd0\x00",
        b"\x30\xff\xff\x7f" + bytes(300_000),
        b"\x32\xc0\xb8\x02\x00\x01t\x00\x07" + bytes(40_000),  # whole, and longer than the buffer
        b"\xf0\x00",
    ]
    for _ in range(60):
        damaged = bytearray(message * 3)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        made.append(bytes(damaged))
    return made


def test_a_broker_that_talks_nonsense_is_left_with_a_reason(device: Device) -> None:
    words = nonsense()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = {"host": "127.0.0.1", "port": listener.getsockname()[1], "tls": False, "ca": None}
        login = {"client_id": "c", "username": "u", "password": "p", "connections": len(words)}
        with device.running("hostile", {"broker": address, **login}) as process:
            for said in words:
                connection, _ = listener.accept()
                connection.recv(1000)
                with contextlib.suppress(OSError):  # left before the end
                    connection.sendall(b"\x20\x02\x00\x00" + said)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1000):
                        pass
                connection.close()
            ends = answer(process)["ends"]
    assert len(ends) == len(words)
    assert all(reason and not connected for reason, _, connected in ends)
    assert ends[2] == ["the other side speaks no MQTT", 0, False]


def test_an_unreachable_broker_is_a_reason(device: Device) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = {"host": "127.0.0.1", "port": taken.getsockname()[1], "tls": False, "ca": None}
        config = {"broker": address, "client_id": "c", "username": "u", "password": "p"}
        assert "111" in device.run("refused", config)["reason"]


# --- TLS, by the embedded broker and by Mosquitto --------------------------------------------------


class Mosquitto:
    """Mosquitto with one listener; over TLS it wants a client certificate."""

    def __init__(
        self, folder: Path, tls: dict[str, str] | None = None, plain_port: int | None = None
    ) -> None:
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true"]
        if os.geteuid() == 0:
            lines.append("user root")
        if tls:
            lines += [f"certfile {tls['cert_file']}", f"keyfile {tls['key_file']}"]
            lines += [f"cafile {tls['ca_file']}", "require_certificate true"]
        if plain_port:
            lines.append(f"listener {plain_port} 127.0.0.1")
        self._last_port = plain_port or self.port  # listeners open in the order of the file
        self._file.write_text("\n".join(lines) + "\n")

    config = Broker.config

    @contextmanager
    def running(self) -> Iterator["Mosquitto"]:
        """While it listens."""
        with running([installed("mosquitto"), "-c", str(self._file)], self._last_port):
            yield self


class Authority:
    """A certificate authority, and what devices need to trust it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issuer, self.files = certificate(folder, "authority", "127.0.0.1")
        self.pem = Path(self.files["cert_file"]).read_text()

    def server(self, name: str, host: str) -> dict[str, str]:
        """The files of a broker that wants client certificates from this authority."""
        return {**certificate(self.folder, name, host, self.issuer)[1], "ca_file": self.files["cert_file"]}

    def trusted(self, client: bool = True, **changes: Any) -> dict[str, Any]:
        """The broker's part of a provisioning file."""
        fields = {"host": "localhost", "tls": True, "ca": self.pem}
        if client:
            files = certificate(self.folder, "client", "pi-1", self.issuer)[1]
            fields["certificate"] = Path(files["cert_file"]).read_text()
            fields["private_key"] = Path(files["key_file"]).read_text()
        return {**fields, **changes}


@contextmanager
def embedded(folder: Path, tls: dict[str, str]) -> Iterator[Broker]:
    """The embedded broker over TLS."""
    broker = Broker(folder, {**tls, "verify": True})  # type: ignore[dict-item]
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def secure_broker(kind: str, folder: Path, tls: dict[str, str]) -> Iterator[Any]:
    """A broker that speaks TLS only and wants a client certificate."""
    with embedded(folder, tls) if kind == "embedded" else Mosquitto(folder, tls).running() as broker:
        yield broker


def test_mosquitto_is_as_good(vm: Device, tmp_path: Path) -> None:
    with Mosquitto(tmp_path).running() as broker:
        conversation(vm, broker)


@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
def test_tls_takes_only_the_right_authority_host_and_client(vm: Device, tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path)
    other = certificate(tmp_path, "other", "localhost")[1]["cert_file"]
    with secure_broker(kind, tmp_path, authority.server("right", "localhost")) as broker:
        good = authority.trusted()
        assert vm.run("quiet", broker.config(broker=good)) == {"connected": True}

        def refusal(**changes: Any) -> str:
            found = vm.run("refused", broker.config(broker={**good, **changes}))
            assert not found.get("connected")
            return str(found["reason"])

        assert "not correctly signed by the trusted CA" in refusal(ca=Path(other).read_text())
        assert "broker.ca" in refusal(ca=None)
        assert "does not match" in refusal(host="127.0.0.1")
        assert refusal(certificate=None)
