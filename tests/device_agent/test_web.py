"""Ranges of large artifacts over HTTP: exactly the bytes asked for, or OSError with the reason."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from device_agent import web
from device_agent.transports.paho import PahoTransport
from tests.device_agent.conftest import provisioning

DATA = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    """Serves DATA with ranges, and the ways a server can get that wrong."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        assert asked
        part = DATA[int(asked[1]) : int(asked[2]) + 1]
        answers = {
            "/good": (206, part),
            "/short": (206, part[:-1]),
            "/long": (206, part + b"x"),
            "/whole": (200, DATA),
            "/missing": (404, b"no such blob"),
        }
        if self.path == "/cut":
            self.wfile.write(b"HTTP/1.0 206 OK\r\nContent-Length: 5000\r\n\r\nonly this")
            return
        if self.path == "/nonsense":
            self.wfile.write(b"\x00\x01\x02 what\r\n\r\n")
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        status, body = answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


def test_the_bytes_asked_for_come(server: str) -> None:
    transport = PahoTransport(provisioning())
    assert transport.fetch_range(f"{server}/good", 100, 5000) == DATA[100:5000]
    assert web.fetch_range(f"{server}/whole", 0, 300) == DATA[:300]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/short", "sent 99 bytes instead of 100"),
        ("/long", "more than the 100 bytes"),
        ("/whole", "ignores range requests"),
        ("/missing", "answered 404"),
        ("/cut", "IncompleteRead|sent 9 bytes"),
        ("/nonsense", r"."),
        ("/elsewhere", r"."),
    ],
)
def test_anything_else_is_an_os_error(server: str, path: str, reason: str) -> None:
    with pytest.raises(OSError, match=reason):
        web.fetch_range(server + path, 100, 200)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "http://", "http://a b/", "https://["]
)
def test_only_http_addresses_are_fetched(url: str) -> None:
    with pytest.raises(OSError, match=r"."):
        web.fetch_range(url, 0, 10)
