"""The gateway and the embedded broker, for real: rights, revoking, acknowledging after commit, lost memory."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from device_agent.core import protocol
from fleet.accounts.roles import Role
from fleet.gateway import inbox
from fleet.gateway.service import Gateway, SecondGatewayError
from fleet.inventory import enrolment, services
from fleet.inventory.credentials import Credentials, device_credentials, gateway_credentials
from fleet.inventory.models import BrokerGrant, Command, Device
from fleet.registry import offers
from fleet.registry.models import Artifact, BlobOffer
from fleet.rollouts import engine
from fleet.rollouts import services as rollouts
from fleet.rollouts.models import Delivery, Intent
from fleet.telemetry.models import Report
from tests.factories import ArtifactFactory, DeviceFactory, GroupFactory, UserFactory
from tests.fleet.gateway.conftest import Client, Nats, work
from tests.services import until

pytestmark = pytest.mark.django_db

Connect = Callable[[Credentials], Client]


def enrolled(gateway: Gateway, *names: str) -> None:
    """Devices that the broker lets in."""
    for name in names:
        BrokerGrant.objects.create(device=DeviceFactory(name=name))
    work(gateway, "grants", lambda: not BrokerGrant.objects.filter(due=True).exists())


def joined(gateway: Gateway, connect: Connect, name: str, generation: int = 1) -> Client:
    """A device that is connected; the broker reads its users in its own time, so it tries again as an agent does."""
    clients: list[Client] = []

    def try_once() -> bool:
        if not clients or clients[-1].refused:
            clients.append(connect(device_credentials(name, generation)))
        return clients[-1].connected

    work(gateway, f"{name}'s connection", try_once)
    return clients[-1]


def hello(**changes: Any) -> dict[str, Any]:
    """A hello."""
    return {
        "epoch": 7,
        "boot": 1,
        "session": 65537,
        "board": "test",
        "runtime": "onnxruntime",
        "agent": "0",
        "uptime_ms": 5,
        "apps": {},
    } | changes


def report(sequence: int, **changes: Any) -> dict[str, Any]:
    """A report."""
    return {
        "epoch": 7,
        "boot": 1,
        "sequence": sequence,
        "app": "main",
        "artifact": "a" * 64,
        "slot": "a",
        "phase": "live",
        "start_ms": 0,
        "end_ms": 1000,
        "n": 3,
        "errors": 0,
        "latency": [[40, 3]],
    } | changes


def test_what_a_device_says_reaches_the_rows(gateway: Gateway, connect: Connect) -> None:
    """Presence, hello and reports; a report that comes twice counts once."""
    enrolled(gateway, "pi-1")
    device = joined(gateway, connect, "pi-1")
    device.say("pi-1", "presence", {"online": True, "epoch": 7, "session": 65537}, retain=True)
    device.say("pi-1", "hello", hello())
    for sequence in (1, 2, 1):
        device.say("pi-1", "report", report(sequence))
    work(gateway, "the reports", lambda: Report.objects.count() == 2)
    row = Device.objects.get(name="pi-1")
    assert row.online
    assert row.hello["board"] == "test"
    assert row.presence_text(timezone.now()) == "in time"


def test_a_device_speaks_only_for_itself(gateway: Gateway, connect: Connect) -> None:
    """Foreign topics: publishing is dropped, subscribing refused; no wildcard opens others' topics."""
    enrolled(gateway, "pi-1", "pi-2")
    device = joined(gateway, connect, "pi-1")
    device.say("pi-2", "report", report(1))
    device.publish("fleet/v1/d/pi-2/desired/main", b"mine now", retain=True)
    device.publish("fleet/v1/blobs/" + "a" * 64 + "/4096/0", b"poison", retain=True)
    device.say("pi-1", "report", report(2))
    work(gateway, "the own report", lambda: Report.objects.exists())
    assert list(Report.objects.values_list("device__name", "sequence")) == [("pi-1", 2)]
    assert device.subscribe("fleet/v1/d/pi-1/desired/+", "fleet/v1/d/pi-1/command")
    for topic in (
        "fleet/v1/d/pi-2/command",
        "fleet/v1/d/+/command",
        "fleet/v1/#",
        "#",
        "fleet/v1/d/+/status",
    ):
        assert not device.subscribe(topic)
    other = joined(gateway, connect, "pi-2")
    assert other.subscribe("fleet/v1/d/pi-2/desired/+", "fleet/v1/blobs/" + "a" * 64 + "/4096/0")
    gateway.broker.publish([("fleet/v1/d/pi-2/desired/end", b"end", False)])
    until("the mark", lambda: other.got)
    assert [payload for _, payload in other.got] == [b"end"]


def test_guessable_client_ids_throw_nobody_off(gateway: Gateway, connect: Connect) -> None:
    """A device that connects under the obvious ids of the gateway and of another device disturbs neither."""
    enrolled(gateway, "pi-1", "pi-2")
    victim = joined(gateway, connect, "pi-2")
    mine = device_credentials("pi-1", 1)
    for guess in ("gateway", "tinyfleet", gateway_credentials().username, "pi-2", "gateway-0"):
        attacker = connect(Credentials(mine.username, mine.password, guess))
        until("an answer", lambda one=attacker: one.connected or one.refused)
    victim.say("pi-2", "report", report(1))
    work(gateway, "the report", lambda: Report.objects.exists())
    assert victim.thrown_off == 0
    assert gateway.broker.connected


def test_a_revoked_device_is_thrown_off_and_stays_out(gateway: Gateway, connect: Connect) -> None:
    """And nobody else notices."""
    enrolled(gateway, "pi-1", "pi-2")
    device, other = (joined(gateway, connect, name) for name in ("pi-1", "pi-2"))
    services.revoke(UserFactory(roles=[Role.ADMIN]), Device.objects.get(name="pi-1"))
    work(gateway, "the end of its connection", lambda: device.thrown_off)
    again = connect(device_credentials("pi-1", 1))
    until("a refusal", lambda: again.refused)
    assert not again.connected
    assert other.thrown_off == 0


def test_enrolling_again_makes_the_old_credentials_worthless(gateway: Gateway, connect: Connect) -> None:
    """A lost state folder: the same name, a new secret."""
    admin = UserFactory(roles=[Role.ADMIN])
    target = DeviceFactory(name="other").target
    _, text = enrolment.create_token(admin, enrolment.TokenOrder(target.slug, uses=2), timezone.now())
    first = enrolment.enrol(text, "pi-1", timezone.now())
    old = joined(gateway, connect, "pi-1", 1)
    second = enrolment.enrol(text, "pi-1", timezone.now())
    assert first["password"] != second["password"]
    work(gateway, "the end of the old connection", lambda: old.thrown_off)
    assert joined(gateway, connect, "pi-1", 2).connected


def test_nothing_is_acknowledged_before_it_is_stored(
    gateway: Gateway, connect: Connect, broker: Nats
) -> None:
    """A gateway that dies with a message in its hands leaves it to the next one."""
    enrolled(gateway, "pi-1")
    device = joined(gateway, connect, "pi-1")
    device.say("pi-1", "report", report(1))
    until("the message", lambda: not gateway.broker.arrivals.empty())
    assert inbox.take_batch(gateway.broker.arrivals, 1)
    gateway.close()
    device.say("pi-1", "report", report(2))
    following = Gateway()
    following.broker.start()
    try:
        work(following, "both reports", lambda: Report.objects.count() == 2)
    finally:
        following.close()


def test_a_broker_that_restarts_loses_no_acknowledged_report(
    gateway: Gateway, connect: Connect, broker: Nats
) -> None:
    """What the device was told is safe is safe."""
    enrolled(gateway, "pi-1")
    device = joined(gateway, connect, "pi-1")
    for sequence in range(5):
        device.say("pi-1", "report", report(sequence))
    broker.stop()
    broker.start()
    work(gateway, "five reports", lambda: Report.objects.count() == 5)


def test_a_poisonous_message_is_dropped_and_the_others_count(gateway: Gateway, connect: Connect) -> None:
    """Whatever a hostile device sends, it is acknowledged once and never stops the queue."""
    enrolled(gateway, "pi-1")
    device = joined(gateway, connect, "pi-1")
    for payload in (
        b"",
        b"\xff",
        b"[" * 3000,
        b'{"v":1}',
        b"9" * 4000,
        protocol.encode(report(1, n=2**70)),
        protocol.encode(report(1, latency=[[0, -1]])),
        protocol.encode(report(1, sum_abs_err=float("nan"), labelled=1)),
        protocol.encode(report(1, slot="\x00", classes={"\x00": 1})),
        protocol.encode(report(1, slot="\ud800")),
        protocol.encode(report(1, end_ms=2**60, start_ms=0)),
    ):
        device.publish("fleet/v1/d/pi-1/report", payload)
    device.publish("fleet/v1/d/pi-1/hello", protocol.encode(hello(session=2**80)))
    device.publish("fleet/v1/d/pi-1/status", protocol.encode({"kind": "answer", "command": "x", "ok": True}))
    device.say("pi-1", "report", report(2))
    work(gateway, "the good report", lambda: Report.objects.exists())
    assert [r.sequence for r in Report.objects.all()] == [2]


class Offered:
    """A rollout of one artifact to pi-1, up to the signed intent."""

    def __init__(self, gateway: Gateway) -> None:
        group = GroupFactory()
        enrolled(gateway, "pi-1")
        Device.objects.get(name="pi-1").groups.add(group)
        self.artifact: Artifact = ArtifactFactory()
        user = UserFactory(roles=[Role.OPERATOR])
        rollout = rollouts.create(user, version=self.artifact.version, group=group)
        rollouts.start(user, rollout)
        engine.tick(timezone.now())

    def topics(self) -> list[str]:
        """The chunks of the artifact, in order."""
        count = protocol.chunk_count(self.artifact.transport_bytes, self.artifact.chunk_bytes)
        sha256 = self.artifact.transport_sha256
        return [protocol.chunk_topic(sha256, self.artifact.chunk_bytes, n) for n in range(count)]

    def sent(self) -> bool:
        """Whether nothing waits any more."""
        return not (Intent.objects.filter(due=True).exists() or BlobOffer.objects.filter(due=True).exists())

    def read_all(self, device: Client) -> bytes:
        """What a device gets that asks for manifest and chunks; the artifact's bytes."""
        device.got.clear()
        assert device.subscribe("fleet/v1/d/pi-1/desired/+", *self.topics())
        until("manifest and chunks", lambda: len(device.got) > len(self.topics()))
        found = dict(device.got)
        assert found["fleet/v1/d/pi-1/desired/main"] == bytes(Intent.objects.get(current=True).payload)
        return b"".join(found[topic] for topic in self.topics())


def test_blobs_are_there_before_the_intent_that_names_them(gateway: Gateway, connect: Connect) -> None:
    """A device that follows a manifest at once finds every chunk."""
    rollout = Offered(gateway)
    work(gateway, "the outbox", rollout.sent)
    order = BlobOffer.objects.order_by("-published_at").first()
    intent = Intent.objects.get()
    assert order
    assert order.published_at <= intent.published_at
    content = rollout.read_all(joined(gateway, connect, "pi-1"))
    assert len(content) == rollout.artifact.transport_bytes
    work(gateway, "nothing", lambda: True)


def test_missing_chunks_are_published_again(gateway: Gateway, connect: Connect) -> None:
    """A chunk that the broker lost comes back when the device asks."""
    rollout = Offered(gateway)
    work(gateway, "the outbox", rollout.sent)
    lost = rollout.topics()[0]
    gateway.broker.publish([(lost, b"", True)])
    device = joined(gateway, connect, "pi-1")
    assert device.subscribe(lost)
    chunk = {
        "blob": rollout.artifact.transport_sha256,
        "chunk_bytes": rollout.artifact.chunk_bytes,
        "chunks": [0],
    }
    device.say("pi-1", "status", {"kind": "missing", "epoch": 7, **chunk})
    work(gateway, "the chunk", lambda: device.got)
    assert len(device.got[0][1]) == rollout.artifact.chunk_bytes


def test_unwanted_blobs_are_withdrawn(gateway: Gateway, connect: Connect) -> None:
    """Nobody needs them: the broker forgets them."""
    rollout = Offered(gateway)
    work(gateway, "the outbox", rollout.sent)
    long_ago = timezone.now() - offers.GRACE - timedelta(hours=1)
    BlobOffer.objects.update(wanted_until=long_ago)
    work(gateway, "withdrawal", lambda: not BlobOffer.objects.filter(withdrawn_at=None).exists())
    device = joined(gateway, connect, "pi-1")
    assert device.subscribe(*rollout.topics(), "fleet/v1/d/pi-1/command")
    gateway.broker.publish([("fleet/v1/d/pi-1/command", b"end", False)])
    until("the mark", lambda: device.got)
    assert [payload for _, payload in device.got if payload] == [b"end"]


def test_a_broker_that_lost_its_disk_gets_everything_again(
    gateway: Gateway, connect: Connect, broker: Nats
) -> None:
    """Chunks and manifests, without anybody asking."""
    rollout = Offered(gateway)
    work(gateway, "the outbox", rollout.sent)
    broker.stop()
    broker.lose_disk()
    broker.start()
    until("the end of the connection", lambda: not gateway.broker.connected)
    work(gateway, "a new session", lambda: gateway.broker.connected)
    work(gateway, "the outbox to fill and empty again", lambda: gateway.send_once() == 0 and rollout.sent())
    content = rollout.read_all(joined(gateway, connect, "pi-1"))
    assert len(content) == rollout.artifact.transport_bytes


def test_commands_go_out_and_come_back_answered(gateway: Gateway, connect: Connect) -> None:
    """Unanswered ones again at the next hello."""
    enrolled(gateway, "pi-1")
    row = Device.objects.get(name="pi-1")
    command = services.send_command(UserFactory(roles=[Role.OPERATOR]), row, "report_now", now=timezone.now())
    work(gateway, "the command", lambda: not Command.objects.filter(due=True).exists())
    device = joined(gateway, connect, "pi-1")
    assert device.subscribe("fleet/v1/d/pi-1/command")
    device.say("pi-1", "hello", hello())
    work(gateway, "the command again", lambda: device.got)
    wanted = protocol.parse_command(device.got[0][1])
    assert (wanted["id"], wanted["name"]) == (str(command.pk), "report_now")
    answer = {"kind": "answer", "epoch": 7, "command": wanted["id"], "ok": True, "result": "done"}
    device.say("pi-1", "status", answer)
    work(gateway, "the answer", lambda: Command.objects.get().state == Command.State.ANSWERED)


def test_a_whole_delivery_over_the_wire(gateway: Gateway, connect: Connect) -> None:
    """A status that a device publishes moves its delivery."""
    rollout = Offered(gateway)
    work(gateway, "the outbox", rollout.sent)
    device = joined(gateway, connect, "pi-1")
    delivery = Delivery.objects.get()
    status = {"kind": "delivery", "epoch": 7, "app": "main", "delivery": str(delivery.pk), "sequence": 1}
    for state in ("downloading", "trial", "succeeded"):
        device.say("pi-1", "status", status | {"state": state, "artifact": rollout.artifact.sha256})
    work(gateway, "the end", lambda: Delivery.objects.get().state == "succeeded")
    assert [line["state"] for line in Delivery.objects.get().history] == [
        "offered",
        "downloading",
        "trial",
        "succeeded",
    ]


def test_a_second_gateway_refuses_to_start(gateway: Gateway) -> None:
    """The embedded broker has no shared subscriptions."""
    with pytest.raises(SecondGatewayError, match="no shared subscriptions"):
        Gateway()


def test_the_users_file_is_private_and_holds_no_more_than_it_must(gateway: Gateway, broker: Nats) -> None:
    """Mode 0600; each device with four topics to publish to."""
    enrolled(gateway, "pi-1")
    assert broker.users.stat().st_mode & 0o777 == 0o600
    users = json.loads("{" + broker.users.read_text() + "}")["authorization"]["users"]
    device = next(user for user in users if user["user"] == "pi-1")
    assert device["permissions"]["publish"]["allow"] == [
        f"fleet.v1.d.pi-1.{leaf}" for leaf in ("presence", "hello", "status", "report")
    ]
