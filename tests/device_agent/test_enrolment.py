"""Enrolment against an HTTP server: what is kept, and one sentence for everything that can go wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from device_agent import config
from device_agent.enrolment import enrol
from device_agent.errors import EnrolmentError
from tests.device_agent.conftest import provisioning


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives one answer; yields its address and the requests it got."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, json.loads(data)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_the_answer_of_the_server_becomes_the_provisioning_file(tmp_path: Path) -> None:
    with answering(201, json.dumps(provisioning()).encode()) as (url, asked):
        assert enrol(url + "/", "t0ken", "pi-1", tmp_path / "state") == provisioning()
    assert asked == [("/api/v1/enrol", {"token": "t0ken", "device": "pi-1"})]
    assert config.load(tmp_path / "state") == provisioning()


def test_a_refused_token_gives_the_servers_reason_and_remedy(tmp_path: Path) -> None:
    refusal = {"error": "refused", "detail": "This token was used up", "remedy": "Ask for a new one."}
    with (
        answering(403, json.dumps(refusal).encode()) as (url, _),
        pytest.raises(
            EnrolmentError, match=r"did not enrol pi-1: This token was used up\. Ask for a new one\."
        ),
    ):
        enrol(url, "t", "pi-1", tmp_path)
    assert not config.provision_file(tmp_path).exists()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, b"<html>", "answered 404; is it a Tinyfleet server"),
        (500, b"[" * 5000, "answered 500"),
        (200, b"<html>", "no usable provisioning: no JSON object"),
        (200, b"{}", "v is None"),
        (200, b" " * 70_000, "no usable provisioning"),
        (200, json.dumps(provisioning(keys=[])).encode(), "unusable: keys"),
        (200, json.dumps(provisioning(device="pi-9")).encode(), "another device"),
    ],
)
def test_every_other_answer_is_one_sentence(tmp_path: Path, status: int, body: bytes, sentence: str) -> None:
    with answering(status, body) as (url, _), pytest.raises(EnrolmentError, match=sentence):
        enrol(url, "t", "pi-1", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        ("http://127.0.0.1:1", "cannot reach http://127.0.0.1:1: "),
        ("ftp://example.org", "no http or https address"),
        ("pi.local", "no http or https address"),
        ("http://[::1", "cannot reach"),
        ("http://127.0.0.1:99999999", "cannot reach"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_sentence(tmp_path: Path, server: str, sentence: str) -> None:
    with pytest.raises(EnrolmentError, match=sentence.replace("[", r"\[")):
        enrol(server, "t", "pi-1", tmp_path)


def test_an_impossible_device_name_is_refused_before_the_token_is_spent(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match="'pi 1' is no device name"):
        enrol("http://127.0.0.1:1", "t", "pi 1", tmp_path)
