"""Who is told how a rollout ends: real HTTP and SMTP servers, signatures, repeated tries, and addresses that are refused."""

import hashlib
import hmac
import http.server
import ipaddress
import json
import select
import socketserver
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from fleet.accounts.roles import Role
from fleet.config.connections import email
from fleet.errors import Forbidden, Refused
from fleet.rollouts import experiments, notices, services, webhooks
from fleet.rollouts.models import Hook, Notice
from tests.device_agent.transports.certificates import certificate
from tests.factories import ArtifactFactory, UserFactory, VersionFactory
from tests.fleet.rollouts.world import RULES, World

pytestmark = pytest.mark.django_db


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what was posted, and answers as the server was told to."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))  # type: ignore[attr-defined]
        self.send_response(self.server.answer)  # type: ignore[attr-defined]
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver(settings: Any) -> Iterator[Any]:
    """A web server of somebody who wants to know, on an allowed address."""
    settings.WEBHOOK_HOSTS = ["127.0.0.1"]
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.answer = [], 204
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/hook?room=1"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def admin() -> Any:
    """Who may decide who is told."""
    return UserFactory(roles=[Role.ADMIN])


def finish(world: World) -> Any:
    """A rollout that succeeds."""
    rollout = world.create(waves=["100%"])
    world.succeed(world.offered())
    world.tick(4)
    return world.fresh(rollout)


def later(seconds: float) -> Any:
    """A moment after the notices were made."""
    return Notice.objects.latest("made_at").made_at + timedelta(seconds=seconds)


def test_a_finished_rollout_is_told_with_a_signature_that_can_be_checked(receiver: Any, admin: Any) -> None:
    hook = notices.add_hook(admin, "webhook", receiver.url)
    assert notices.add_hook(admin, "webhook", receiver.url) == hook
    rollout = finish(World(size=2))
    assert notices.send_due(later(1)) == 1
    assert notices.send_due(later(2)) == 0
    (headers, body) = receiver.got[0]
    told = json.loads(body)
    assert (told["event"], told["rollout"], told["sentence"]) == ("finished", rollout.pk, rollout.reason)
    signed = headers["X-Tinyfleet-Timestamp"].encode() + b"." + body
    right = hmac.new(webhooks.secret(hook).encode(), signed, hashlib.sha256).hexdigest()
    assert headers["X-Tinyfleet-Signature"] == f"sha256={right}"
    assert Notice.objects.get().state == "sent"


def test_held_and_rolled_back_are_told_as_well_and_a_pause_is_not(receiver: Any, admin: Any) -> None:
    notices.add_hook(admin, "webhook", receiver.url)
    world = World(size=2)
    rollout = world.create()
    services.pause(world.user, rollout)
    services.resume(world.user, rollout)
    device = world.offered()[0]
    device.status("failed", world.now)
    world.tick(3)
    services.roll_back(world.user, world.fresh(rollout), now=world.now)
    world.tick(1)
    device.status("succeeded", world.now)
    world.tick(2)
    notices.send_due(later(1))
    assert [json.loads(body)["event"] for _, body in receiver.got] == ["held", "rolling_back", "rolled_back"]


def test_an_experiment_is_told_from_its_start_to_its_promotion(receiver: Any, admin: Any) -> None:
    """Signed as the rest; its halves end as rollouts do."""
    notices.add_hook(admin, "webhook", receiver.url)
    world = World(size=4)
    order = experiments.order_of(
        version_a=world.v1.version, version_b=world.v2.version, group=world.group, rules=RULES
    )
    made = experiments.create(world.user, order, world.now)
    world.tick(4)
    experiments.decide(made, "decided", "v2 is better", world.now, winner="b")
    for _ in range(2):
        promoted = experiments.promote(world.user, experiments.by_id(made.pk), "b", world.now)
    assert promoted.promotion is not None
    services.abort(world.user, promoted.promotion, "revert", now=world.now)
    again = experiments.create(world.user, order, world.now)
    for _ in range(2):
        experiments.stop(world.user, experiments.by_id(again.pk), "keep", world.now, note="wrong model")
    assert notices.send_due(later(1)) == len(receiver.got)
    told = [json.loads(body) for _, body in receiver.got]
    assert [(each["event"], each["experiment"]) for each in told if "experiment" in each] == [
        ("experiment_started", made.pk),
        ("experiment_decided", made.pk),
        ("experiment_promoted", made.pk),
        ("experiment_started", again.pk),
        ("experiment_stopped", again.pk),
    ]
    stopped = next(each for each in told if each["event"] == "experiment_stopped")
    assert (stopped["sentence"], stopped["version_b"]) == ("stopped by hand: wrong model", 2)
    page = Client()
    page.force_login(admin)
    assert f"Experiment {made.pk}</a> promoted" in page.get("/notifications/").content.decode()


def test_what_is_not_taken_is_tried_again_with_growing_waits_and_then_given_up(
    receiver: Any, admin: Any
) -> None:
    """A redirect is no way out: it is not followed."""
    receiver.answer = 302
    notices.add_hook(admin, "webhook", receiver.url)
    finish(World(size=1))
    moment, waits = later(1), []
    for _ in range(notices.ATTEMPTS):
        assert notices.send_due(moment) == 0
        notice = Notice.objects.get()
        waits.append((notice.next_at - moment).total_seconds())
        moment = notice.next_at
    assert waits[:4] == [10, 40, 160, 640]
    assert max(waits) == notices.LONGEST_WAIT.total_seconds()
    assert (notice.state, notice.reason) == ("failed", "the answer was 302")
    assert len({headers["X-Tinyfleet-Delivery"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == notices.ATTEMPTS


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://example.org/x", "is not among the hosts"),
        ("http://localhost/x", "is not among the hosts"),
        ("http://hooks.example.com/x", "written as numbers only"),
        ("https://user:pw@hooks.example.com/", "not https://host/path"),
        ("ftp://hooks.example.com/", "not https://host/path"),
        ("https://[::1", "cannot be read"),
        ("https://127.0.0.1@hooks.example.com/", "not https://host/path"),
        ("https://169.254.169.254/latest", "is not among the hosts"),
    ],
)
def test_addresses_that_webhooks_may_not_reach(address: str, words: str, settings: Any, admin: Any) -> None:
    settings.WEBHOOK_HOSTS = ["hooks.example.com"]
    with pytest.raises(Refused, match=words):
        notices.add_hook(admin, "webhook", address)


def test_an_allowed_name_that_leads_inside_is_not_followed(receiver: Any, admin: Any, settings: Any) -> None:
    """`localhost` resolves to an address that is not public: nothing is sent to it."""
    settings.WEBHOOK_HOSTS = ["localhost"]
    notices.add_hook(admin, "webhook", f"https://localhost:{receiver.server_port}/")
    finish(World(size=1))
    notices.send_due(later(1))
    assert "not public" in Notice.objects.get().reason
    settings.WEBHOOK_HOSTS = []
    notices.send_due(later(3600))
    assert "is not among the hosts" in Notice.objects.get().reason
    assert receiver.got == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("64:ff9b::5db8:d822", True),  # the first one, through NAT64
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::7f00:1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("fec0::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_addresses_that_stand_for_private_ones_are_not_public(address: str, public: bool) -> None:
    assert webhooks.is_public(ipaddress.ip_address(address)) is public


class Dripping(Receiver):
    """Answers with a header that never ends, for as long as anybody listens, or for 400 bytes."""

    def do_POST(self) -> None:
        try:
            self.send_response(204)
            self.flush_headers()
            for _ in range(400):
                self.wfile.write(b"x")
                select.select([], [], [], 0.02)
        except OSError:
            self.server.was_left = True  # type: ignore[attr-defined]


def test_who_answers_a_byte_at_a_time_holds_no_worker(
    admin: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Over TLS, whose timeouts begin anew with every byte."""
    _, files = certificate(tmp_path, "hooks", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", files["cert_file"])
    monkeypatch.setattr(webhooks, "SECONDS", 0.5)
    settings.WEBHOOK_HOSTS = ["127.0.0.1"]
    with http.server.HTTPServer(("127.0.0.1", 0), Dripping) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files["cert_file"], files["key_file"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hook = notices.add_hook(admin, "webhook", f"https://127.0.0.1:{server.server_port}/")
        notices.try_out(admin, hook.pk)
        notices.send_due(later(0))
        server.shutdown()
    assert server.was_left  # type: ignore[attr-defined]


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as a message needs."""

    def handle(self) -> None:
        """Greet, take one message, say goodbye."""
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.got.append(text.decode())  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")
            if line.upper().startswith(b"QUIT"):
                return


def test_mail_goes_out_by_smtp(admin: Any, settings: Any) -> None:
    settings.EMAIL_BACKEND = email("")["EMAIL_BACKEND"]
    with pytest.raises(Refused, match="sends no e-mail"):
        notices.add_hook(admin, "email", "ops@example.org")
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox)
    server.got = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in email(f"smtp://127.0.0.1:{server.server_address[1]}").items():
        setattr(settings, name, value)
    with pytest.raises(Refused, match="no e-mail address"):
        notices.add_hook(admin, "email", "nobody\nBcc: x@example.org")
    notices.add_hook(admin, "email", "ops@example.org")
    world = World(size=2)
    rollout = finish(world)
    v3 = ArtifactFactory(version=VersionFactory(model=world.v1.version.model)).version
    order = experiments.order_of(version_a=world.v2.version, version_b=v3, group=world.group, rules=RULES)
    made = experiments.create(world.user, order, world.now)
    assert notices.send_due(later(1)) == 2
    server.shutdown()
    server.server_close()
    message, other = server.got
    assert f"experiment {made.pk} of {v3.model.slug} v2 and v3: started" in other
    assert f"/experiments/{made.pk}/" in other
    assert "To: ops@example.org" in message
    assert f"rollout {rollout.pk} of {rollout.version.model.slug} v2: finished" in message
    assert rollout.reason in message


def test_only_administrators_see_and_change_who_is_told(receiver: Any, admin: Any) -> None:
    with pytest.raises(Forbidden):
        notices.add_hook(UserFactory(roles=[Role.OPERATOR]), "webhook", receiver.url)
    page = Client()
    page.force_login(UserFactory(roles=[Role.OPERATOR]))
    assert page.get("/notifications/").status_code == 403
    page.force_login(admin)
    page.post("/notifications/", {"kind": "webhook", "address": receiver.url})
    hook = Hook.objects.get()
    assert webhooks.secret(hook) in page.get("/notifications/").content.decode()
    page.post(f"/notifications/{hook.pk}/test/")
    assert notices.send_due(later(1)) == 1
    refused = page.post("/notifications/", {"kind": "webhook", "address": "https://example.org/"})
    assert "is not among the hosts" in refused.content.decode()
    page.post(f"/notifications/{hook.pk}/remove/")
    assert not Notice.objects.exists()
