"""Bodies that are too large are cut by a real server before Django sees them, and the client reads why."""

import resource
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from django.core.asgi import get_asgi_application

from fleet.config.body_limit import BodyLimit
from tests.services import until

LIMIT = 1_000_000
PATH = "/api/v1/datasets"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = uvicorn.Config(BodyLimit(get_asgi_application(), LIMIT), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until("uvicorn", lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def blocks(total: int) -> Iterator[bytes]:
    for _ in range(total // 10_000):
        yield b"x" * 10_000


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 413
    body = answer.json()
    assert body["error"] == "too_large"
    assert "1.0 MiB" in body["detail"]
    assert "UPLOAD_MAX_BYTES" in body["remedy"]


def test_an_announced_body_over_the_limit_is_refused_in_words(url):
    refused(httpx.post(url + PATH, content=b"x" * (3 * LIMIT)))


def test_a_stream_without_a_length_is_counted(url):
    refused(httpx.post(url + PATH, content=blocks(20 * LIMIT)))


def test_a_client_that_waits_for_100_continue_never_sends_the_body(url):
    host, _, port = url.removeprefix("http://").partition(":")
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {2 * LIMIT}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_below_the_limit_reaches_the_api(url):
    assert httpx.post(url + PATH, content=blocks(LIMIT - 10_000)).json()["error"] == "unauthenticated"


def test_a_server_goes_on_after_a_refusal(url):
    with httpx.Client() as client:
        refused(client.post(url + PATH, content=blocks(2 * LIMIT)))
        assert client.get(url + "/api/v1/nothing-here").status_code == 404


def test_two_gigabytes_cost_neither_memory_nor_disk(url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    block, total = bytes(1 << 20), 2 << 30
    sent = {"Content-Length": str(total), "Content-Type": "multipart/form-data; boundary=x"}
    refused(
        httpx.post(url + PATH, content=(block for _ in range(total // len(block))), headers=sent, timeout=60)
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 64 << 20
    assert list(tmp_path.iterdir()) == []


def test_a_browser_reads_a_sentence_with_a_way_back(url):
    answer = httpx.post(
        url + "/datasets/upload/", content=b"x" * 2 * LIMIT, headers={"Accept": "text/html,*/*"}
    )
    assert answer.status_code == 413
    assert answer.headers["content-type"].startswith("text/html")
    assert "larger than the 1.0 MiB" in answer.text
    assert 'href="/datasets/upload/"' in answer.text
