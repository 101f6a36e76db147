"""The paho transport against a real broker: what is sent, received, acknowledged, refused and lost."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.transports import paho
from device_agent.transports.paho import Inbox, PahoTransport
from tests.device_agent.transports.certificates import certificate
from tests.device_agent.transports.conftest import Broker
from tests.services import until

PRESENCE = "fleet/v1/d/pi-1/presence"
REPORT = "fleet/v1/d/pi-1/report"
COMMAND = "fleet/v1/d/pi-1/command"


def connected(config: dict[str, Any], will: bytes = b"gone") -> PahoTransport:
    transport = PahoTransport(config)
    transport.connect(PRESENCE, will, 1)
    until("a connection", lambda: transport.connected() or transport.failure())
    return transport


def refusal(config: dict[str, Any]) -> str:
    transport = connected(config)
    assert not transport.connected()
    reason = transport.failure()
    transport.disconnect(clean=False)
    assert reason
    return reason


@contextmanager
def peer(broker: Broker, *topics: str) -> Iterator[PahoTransport]:
    """The server's side of the conversation."""
    config = broker.config(client_id="server", username="server", password="server")
    transport = PahoTransport(config)
    transport.connect("server/will", b"", 1)
    until("the server's connection", lambda: transport.connected() or transport.failure())
    assert transport.connected(), transport.failure()
    # Its own message comes back only after the broker has taken the subscriptions.
    transport.subscribe([(topic, 1) for topic in (*topics, "server/ready")])
    transport.publish("server/ready", b"", 1)
    assert received(transport, 1) == [("server/ready", b"")]
    yield transport
    transport.disconnect(clean=True)


def received(transport: PahoTransport, count: int) -> list[tuple[str, bytes]]:
    messages: list[tuple[str, bytes]] = []
    deadline = time.monotonic() + 20
    while len(messages) < count and time.monotonic() < deadline:
        transport.wait(500)
        while (message := transport.receive()) is not None:
            messages.append(message)
    return messages


def test_messages_arrive_and_are_acknowledged(broker: Broker) -> None:
    device = connected(broker.config())
    with peer(broker, REPORT) as server:
        tokens = [device.publish(REPORT, b"%d" % i, 1) for i in range(100)]
        assert [payload for _, payload in received(server, 100)] == [b"%d" % i for i in range(100)]
        until("every PUBACK", lambda: all(device.acknowledged(token) for token in tokens))
    assert not device.acknowledged(tokens[-1] + 1)
    device.disconnect(clean=True)


def test_retained_chunks_come_in_the_order_of_one_subscribe_packet(broker: Broker) -> None:
    topics = [f"fleet/v1/blobs/{i}" for i in range(16)]
    with peer(broker) as server:
        sent = [server.publish(topic, topic.encode() * 500, 1, True) for topic in topics]
        until("the chunks to be stored", lambda: all(server.acknowledged(token) for token in sent))
    device = connected(broker.config())
    device.subscribe([(topic, 0) for topic in topics])
    assert received(device, 16) == [(topic, topic.encode() * 500) for topic in topics]
    device.unsubscribe(topics)
    device.disconnect(clean=True)


def test_the_will_is_published_when_the_device_dies_but_not_after_a_clean_end(broker: Broker) -> None:
    with peer(broker, PRESENCE) as server:
        first = connected(broker.config())
        first.publish(PRESENCE, b"online", 1, True)
        assert received(server, 1) == [(PRESENCE, b"online")]
        first.disconnect(clean=False)
        assert received(server, 1) == [(PRESENCE, b"gone")]
        second = connected(broker.config())
        second.publish(PRESENCE, b"offline", 1, True)
        second.disconnect(clean=True)
        assert received(server, 1) == [(PRESENCE, b"offline")]
    # The last word is retained: a will would have replaced it.
    late = connected(broker.config(client_id="late", username="server", password="server"))
    late.subscribe([(PRESENCE, 1)])
    assert received(late, 1) == [(PRESENCE, b"offline")]
    late.disconnect(clean=True)


def test_a_refused_password_is_said(broker: Broker) -> None:
    assert "the broker refused this device" in refusal(broker.config(password="wrong"))


def test_an_unreachable_broker_is_a_reason_and_no_exception() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = {"host": "127.0.0.1", "port": taken.getsockname()[1], "tls": False, "ca": None}
        config = {"broker": address, "client_id": "c", "username": "u", "password": "p"}
        assert "ConnectionRefusedError" in refusal(config)


def test_something_that_is_no_broker_ends_as_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = threading.Thread(target=_talk_nonsense, args=(listener,))
        answer.start()
        address = {"host": "127.0.0.1", "port": listener.getsockname()[1], "tls": False, "ca": None}
        assert refusal({"broker": address, "client_id": "c", "username": "u", "password": "p"})
        answer.join()


def _talk_nonsense(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.close()


def test_a_lost_broker_is_noticed_and_a_new_connection_works(broker: Broker) -> None:
    device = connected(broker.config())
    token = device.publish(REPORT, b"before", 1)
    until("the PUBACK", lambda: device.acknowledged(token))
    broker.stop()
    until("the loss", lambda: not device.connected())
    assert device.failure()
    with pytest.raises(OSError, match="connection"):
        device.publish(REPORT, b"x", 1)
    with pytest.raises(OSError, match="connection"):
        device.subscribe([(COMMAND, 1)])
    broker.start()
    device.connect(PRESENCE, b"gone", 2)
    until("a new connection", device.connected)
    assert not device.acknowledged(token)
    again = device.publish(REPORT, b"after", 1)
    until("the new PUBACK", lambda: device.acknowledged(again))
    device.disconnect(clean=True)


def test_wait_ends_early_when_a_message_comes(broker: Broker) -> None:
    device = connected(broker.config())
    device.subscribe([(COMMAND, 1)])
    with peer(broker) as server:
        server.publish(COMMAND, b"now", 1)
        started = time.monotonic()
        while (message := device.receive()) is None and time.monotonic() < started + 20:
            device.wait(20000)
        assert message == (COMMAND, b"now")
        assert time.monotonic() < started + 20
    device.disconnect(clean=True)


def test_before_a_connection_everything_is_refused_and_nothing_hangs() -> None:
    broker = {"host": "127.0.0.1", "port": 1, "tls": False, "ca": None}
    transport = PahoTransport({"broker": broker, "client_id": "c", "username": "u", "password": "p"})
    assert not transport.connected()
    assert transport.failure() is None
    assert transport.receive() is None
    assert not transport.acknowledged(0)
    transport.wait(1)
    transport.disconnect(clean=True)
    with pytest.raises(OSError, match="not connected"):
        transport.publish(REPORT, b"x", 1)


def test_the_inbox_drops_chunks_beyond_its_bounds_but_never_a_manifest() -> None:
    inbox = Inbox()
    half = bytes(paho.QUEUE_BYTES // 2)
    assert inbox.put("blobs/1", half, 0)
    assert inbox.put("blobs/2", half, 0)
    assert inbox.put("blobs/3", b"x", 0)
    assert inbox.dropped == 1
    assert not inbox.put("desired", b"x", 1)
    assert inbox.take() == ("blobs/1", half)
    assert inbox.put("desired", b"x", 1)
    many = Inbox()
    for i in range(paho.QUEUE_MESSAGES + 5):
        assert many.put(str(i), b"", 0)
    assert len(many) == paho.QUEUE_MESSAGES
    assert many.dropped == 5


def test_tls_trusts_only_the_given_authority_and_the_right_host(tmp_path: Path) -> None:
    authority, files = certificate(tmp_path, "authority", "127.0.0.1")
    _, other = certificate(tmp_path, "other", "127.0.0.1")
    _, right = certificate(tmp_path, "right", "127.0.0.1", authority)
    _, elsewhere = certificate(tmp_path, "elsewhere", "10.1.1.1", authority)
    ca, wrong_ca = (Path(f["cert_file"]).read_text() for f in (files, other))
    broker = Broker(tmp_path, right)
    broker.start()
    try:
        device = connected(broker.config(broker={"tls": True, "ca": ca}))
        assert device.connected(), device.failure()
        device.disconnect(clean=True)
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(broker.config(broker={"tls": True, "ca": wrong_ca}))
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(broker.config(broker={"tls": True, "ca": None}))
    finally:
        broker.stop()
    stranger = Broker(tmp_path, elsewhere)
    stranger.start()
    try:
        assert "IP address mismatch" in refusal(stranger.config(broker={"tls": True, "ca": ca}))
    finally:
        stranger.stop()
