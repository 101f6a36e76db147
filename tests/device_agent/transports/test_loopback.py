"""The in-process broker behaves as the real ones do where the agent relies on it, and spoils what it is told to."""

import threading

import pytest

from device_agent.transports.loopback import QUEUE_MESSAGES, Broker, Faults, LoopbackTransport

CHUNK = "fleet/v1/blobs/ab/4096/"


def device(broker: Broker, client_id: str = "pi-1") -> LoopbackTransport:
    transport = LoopbackTransport(broker, client_id)
    transport.connect("presence", b"gone", 1)
    return transport


def everything(transport: LoopbackTransport) -> list[tuple[str, bytes]]:
    return list(iter(transport.receive, None))


def test_what_a_device_publishes_is_seen_kept_and_acknowledged() -> None:
    broker = Broker()
    transport = device(broker)
    token = transport.publish("presence", b"here", 1, True)
    assert transport.acknowledged(token)
    assert list(broker.seen) == [("presence", b"here")]
    assert broker.retained == {"presence": b"here"}


def test_retained_messages_come_in_the_order_of_the_filters() -> None:
    broker = Broker()
    for i in (3, 1, 2, 0):
        broker.publish(CHUNK + str(i), b"%d" % i, retain=True)
    transport = device(broker)
    transport.subscribe([(CHUNK + str(i), 0) for i in range(5)])
    assert everything(transport) == [(CHUNK + str(i), b"%d" % i) for i in range(4)]
    broker.publish(CHUNK + "4", b"4", retain=True)
    broker.publish(CHUNK + "9", b"9", retain=True)
    assert everything(transport) == [(CHUNK + "4", b"4")]
    transport.unsubscribe([CHUNK + "4"])
    broker.publish(CHUNK + "4", b"4")
    assert everything(transport) == []


def test_an_empty_retained_payload_withdraws() -> None:
    broker = Broker()
    broker.publish("desired", b"x", retain=True)
    broker.publish("desired", b"", retain=True)
    transport = device(broker)
    transport.subscribe([("desired", 1)])
    assert everything(transport) == []


def test_the_will_follows_a_cut_but_not_a_clean_end() -> None:
    broker = Broker()
    transport = device(broker)
    broker.cut("pi-1")
    assert not transport.connected()
    assert transport.failure() == "the connection was cut"
    assert list(broker.seen) == [("presence", b"gone")]
    transport.connect("presence", b"gone again", 2)
    transport.disconnect(clean=True)
    assert len(broker.seen) == 1


def test_a_second_session_of_a_client_id_throws_the_first_off() -> None:
    broker = Broker()
    first = device(broker)
    second = device(broker)
    assert not first.connected()
    assert second.connected()
    first.disconnect(clean=True)
    second.publish("report", b"x", 1)


def test_a_broker_that_is_down_refuses_and_comes_back() -> None:
    broker = Broker()
    transport = device(broker)
    broker.stop()
    with pytest.raises(OSError, match="cut"):
        transport.publish("report", b"x", 1)
    with pytest.raises(OSError, match="down"):
        transport.connect("presence", b"gone", 2)
    broker.start()
    transport.connect("presence", b"gone", 3)
    assert transport.connected()


def test_an_unacknowledging_broker_and_old_tokens() -> None:
    broker = Broker()
    transport = device(broker)
    token = transport.publish("report", b"x", 1)
    broker.acknowledge = False
    assert not transport.acknowledged(transport.publish("report", b"y", 1))
    transport.connect("presence", b"gone", 2)
    assert not transport.acknowledged(token)


def test_wait_ends_when_a_message_comes() -> None:
    broker = Broker()
    transport = device(broker)
    transport.subscribe([("command", 1)])
    other = threading.Timer(0.05, broker.publish, ("command", b"now"))
    other.start()
    while (message := transport.receive()) is None:
        transport.wait(20_000)
    assert message == ("command", b"now")
    other.join()


def spoilt(**faults: float) -> list[tuple[str, bytes]]:
    broker = Broker(Faults(seed=1, **faults))  # type: ignore[arg-type]
    transport = device(broker)
    transport.subscribe([(CHUNK + str(i), 0) for i in range(100)] + [("desired", 1)])
    for i in range(100):
        broker.publish(CHUNK + str(i), bytes(8))
    broker.publish("desired", bytes(8))
    return everything(transport)


def test_faults_hit_chunks_at_the_given_rate_and_nothing_else() -> None:
    whole = spoilt()
    assert len(whole) == 101
    assert 20 < len(spoilt(drop=0.5)) < 80
    assert len(spoilt(double=0.2)) > 105
    reordered = spoilt(reorder=0.3)
    assert sorted(reordered) == sorted(whole)
    assert reordered != whole
    assert any(len(payload) < 8 for _, payload in spoilt(truncate=0.2))
    flipped = spoilt(flip=1)
    assert all(payload.count(0) == 7 for topic, payload in flipped if topic != "desired")
    assert flipped[-1] == ("desired", bytes(8))


def test_the_queue_is_bounded() -> None:
    broker = Broker()
    transport = device(broker)
    transport.subscribe([("command", 1)])
    for _ in range(QUEUE_MESSAGES + 50):
        broker.publish("command", b"x")
    assert len(everything(transport)) == QUEUE_MESSAGES
