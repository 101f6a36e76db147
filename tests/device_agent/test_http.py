"""Applications talk to a running agent over loopback: answers, labels, status, and every refusal in words."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent import http as agent_http
from device_agent.core import protocol
from device_agent.errors import AgentError
from device_agent.host import Host
from device_agent.runtimes.onnx import OnnxRuntime
from device_agent.transports.loopback import Broker, LoopbackTransport
from tests.device_agent.conftest import provisioning
from tests.device_agent.server import Server, keys, model
from tests.services import until


class Desk:
    """A running agent on a loopback broker, with its HTTP port."""

    def __init__(self, state: Path) -> None:
        self.broker = Broker()
        config = provisioning(keys=keys(), chunk_bytes=256)
        self.host = Host(config, LoopbackTransport(self.broker, "pi-1"), OnnxRuntime(), state)
        self.server = Server(self._retain, "pi-1", 256)
        self.http = agent_http.serve(self.host, 0)
        self.port: int = self.http.server_address[1]

    def _retain(self, topic: str, payload: bytes) -> None:
        self.broker.publish(topic, payload, retain=True)

    def install(self, folder: Path) -> None:
        """Deliver a model and wait until it answers."""
        self.server.deliver(model(folder), "raspberry-pi-4")
        until("the model", lambda: self.ask("GET", "/status")[1]["apps"]["main"]["installed"])

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """One request; the body is sent as JSON unless it is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(
            method, path, data, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "application/json"
        result = answer.status, json.loads(answer.read())
        connection.close()
        return result


@pytest.fixture
def desk(state: Path) -> Iterator[Desk]:
    """An agent without a model."""
    made = Desk(state)
    with made.host:
        yield made
    made.http.shutdown()
    made.http.server_close()


def test_before_a_model_is_installed_predict_says_so(desk: Desk) -> None:
    assert desk.ask("POST", "/predict", {"x": [1, 2, 3]}) == (503, {"error": "no model installed yet"})
    code, status = desk.ask("GET", "/status")
    assert code == 200
    assert status["device"] == "pi-1"
    assert status["apps"]["main"]["installed"] is None


def test_a_delivered_model_answers_and_takes_labels_once(desk: Desk, tmp_path: Path) -> None:
    desk.install(tmp_path)
    code, answer = desk.ask("POST", "/predict", {"app": "main", "x": [0, 0, 1]})
    assert code == 200
    assert answer["outputs"] == [[0, 0, 8]]
    assert answer["class"] == 2
    assert desk.ask("POST", "/reset", {}) == (200, {"reset": True})
    assert desk.ask("POST", "/label", {"prediction": answer["prediction"], "y": 2})[0] == 200
    code, refusal = desk.ask("POST", "/label", {"prediction": answer["prediction"], "y": 2})
    assert code == 404
    assert "labelled already" in refusal["error"]
    until("presence", lambda: any(topic.endswith("/presence") for topic, _ in list(desk.broker.seen)))


def test_requests_that_cannot_be_answered_get_a_status_and_a_sentence(desk: Desk, tmp_path: Path) -> None:
    desk.install(tmp_path)
    prediction = desk.ask("POST", "/predict", {"x": [1, 0, 0]})[1]["prediction"]
    for method, path, body, code, sentence in (
        ("POST", "/predict", {"x": [1, 2]}, 400, "x has shape [2], the model takes float32 [1, 3]"),
        ("POST", "/predict", {"x": "abc"}, 400, "x is no array of numbers"),
        ("POST", "/predict", {"y": 1}, 400, "x is missing"),
        (
            "POST",
            "/predict",
            {"x": [1, 2, 3], "app": "other"},
            400,
            "no app is called other; this device has main",
        ),
        ("POST", "/predict", {"x": [1, 2, 3], "app": 5}, 400, "app is no text"),
        ("POST", "/predict", b'{"x": [1, 2, NaN]}', 400, "NaN is no number"),
        ("POST", "/predict", b'{"x": [1, 2, 1e999]}', 400, "x holds NaN or infinity"),
        ("POST", "/predict", b"[" * 100_000, 400, "not JSON"),
        ("POST", "/predict", b"\xff", 400, "not JSON"),
        ("POST", "/predict", [1], 400, "no JSON object"),
        ("POST", "/label", {"prediction": 1}, 400, "prediction and y are needed"),
        ("POST", "/label", {"prediction": "x", "y": 1}, 404, "unknown"),
        ("POST", "/label", {"prediction": prediction, "y": 77}, 400, "classes are 0 to 2"),
        ("POST", "/label", {"prediction": prediction + 1, "y": [1]}, 404, "unknown"),
        ("GET", "/nothing", None, 404, "POST /predict, POST /reset, POST /label, POST /consent, GET /status"),
        ("GET", "/predict", None, 405, "POST /predict"),
    ):
        got, answer = desk.ask(method, path, body)
        assert got == code, answer
        assert sentence in answer["error"]
    assert (
        desk.ask("GET", "/status")[1]["apps"]["main"]["errors"] == 0
    )  # none of these is the model's mistake


def test_a_person_at_the_device_says_when_something_is_installed(desk: Desk) -> None:
    assert desk.ask("POST", "/consent", {"answer": "now"}) == (404, {"error": "nothing waits for consent"})
    args = {"delivery": "d1", "model": "digits", "version": 2, "bytes": 900}
    command = {"id": "q1", "name": "consent", "app": "main", "args": args}
    desk.broker.publish(protocol.device_topic("pi-1", "command"), protocol.encode(command))
    until("the question", lambda: desk.ask("GET", "/status")[1]["asks"])
    assert desk.ask("POST", "/consent", {"answer": "perhaps"})[0] == 400
    assert desk.ask("POST", "/consent", {"answer": "tonight"}) == (200, {"consent": "tonight"})
    assert desk.ask("GET", "/status")[1]["asks"] == {}


def test_a_body_that_is_too_large_or_of_unknown_size_is_not_read(desk: Desk) -> None:
    huge = str(agent_http.BODY_MAX_BYTES + 1)
    assert desk.ask("POST", "/predict", None, Content_Length=huge)[0] == 413
    assert desk.ask("POST", "/predict", None, Content_Length="1" * 400)[0] == 413
    assert desk.ask("POST", "/predict", None, Content_Length="-1")[0] == 411
    assert desk.ask("POST", "/predict", None, Content_Length="x")[0] == 411


def test_web_pages_in_a_browser_on_the_device_are_refused(desk: Desk) -> None:
    assert desk.ask("GET", "/status", None, Origin="https://example.org")[0] == 403
    assert desk.ask("GET", "/status", None, Host="rebound.example.org:8080")[0] == 403
    assert desk.ask("GET", "/status", None, Host="localhost:8080")[0] == 200


def test_it_listens_on_loopback_only_and_a_taken_port_is_one_sentence(desk: Desk) -> None:
    assert desk.http.server_address[0] == "127.0.0.1"
    with pytest.raises(AgentError, match=rf"port {desk.port} of 127.0.0.1: .*choose another with --http"):
        agent_http.serve(desk.host, desk.port)


def test_a_client_that_hangs_up_in_the_middle_does_no_harm(desk: Desk) -> None:
    with socket.create_connection(("127.0.0.1", desk.port)) as client:
        client.sendall(b"POST /predict HTTP/1.0\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    with socket.create_connection(("127.0.0.1", desk.port)) as client:
        client.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
    assert desk.ask("GET", "/status")[0] == 200


def test_many_applications_are_served_beside_the_agents_own_work(desk: Desk, tmp_path: Path) -> None:
    desk.install(tmp_path)
    wrong: list[Any] = []

    def work(place: int) -> None:
        x = [float(i == place) for i in range(3)]
        for _ in range(20):
            code, answer = desk.ask("POST", "/predict", {"x": x})
            if (code, answer.get("class")) != (200, place):
                wrong.append((code, answer))

    threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert desk.ask("GET", "/status")[1]["apps"]["main"]["n"] >= 60
