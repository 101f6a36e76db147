"""`python -m device_agent` as a process: it enrols, stays connected, stops cleanly, and fails in one line."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent import config
from device_agent.__main__ import main
from device_agent.core import protocol
from device_agent.transports.paho import PahoTransport
from tests.device_agent.conftest import provisioning
from tests.device_agent.server import Server, keys, model
from tests.device_agent.test_enrolment import answering
from tests.device_agent.transports.conftest import Broker
from tests.services import until

PRESENCE = "fleet/v1/d/pi-1/presence"


class Process:
    """An agent process with its log."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "device_agent", "run", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> "re.Match[str]":
        """The first line of the log, from here on, that matches."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"{pattern} is not in the log:\n{''.join(self.lines)}")

    def end(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.lines.extend(self.process.stderr or [])
        return self.process.wait(20)


@contextmanager
def agent(*arguments: str) -> Iterator[Process]:
    """An agent process, killed at the latest with the block."""
    process = Process(*arguments)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()
        if process.process.stderr:
            process.process.stderr.close()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    result = answer.status, json.loads(answer.read())
    connection.close()
    return result


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker."""
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()


@contextmanager
def gateway(broker: Broker) -> Iterator[PahoTransport]:
    """The server's connection to the broker, which sees the device's presence."""
    transport = PahoTransport(broker.config(client_id="server", username="server", password="server"))
    transport.connect("server/will", b"", 1)
    until("the server's connection", transport.connected)
    transport.subscribe([(PRESENCE, 1)])
    yield transport
    transport.disconnect(clean=True)


def presence(transport: PahoTransport, online: bool) -> bool:
    """Whether the device said so meanwhile."""
    while (message := transport.receive()) is not None:
        if protocol.parse_presence(message[1])["online"] is online:
            return True
    return False


def test_it_enrols_installs_answers_restarts_and_stops(broker: Broker, tmp_path: Path) -> None:
    state = tmp_path / "device"
    mine = provisioning(keys=keys(), chunk_bytes=4096, **broker.config())
    with gateway(broker) as server, answering(200, json.dumps(mine).encode()) as (url, _):
        enrol = ["--server", url, "--token", "t", "--device", "pi-1"]
        with agent("--state", str(state), "--http", "0", *enrol) as process:
            port = int(process.read_until(r"http://127\.0\.0\.1:(\d+)")[1])
            until("presence", lambda: presence(server, online=True))
            assert ask(port, "POST", "/predict", {"x": [1, 0, 0]}) == (
                503,
                {"error": "no model installed yet"},
            )
            publisher = Server(lambda topic, payload: server.publish(topic, payload, 1, True), "pi-1", 4096)
            publisher.deliver(model(tmp_path), "raspberry-pi-4")
            until("the model", lambda: ask(port, "POST", "/predict", {"x": [0, 0, 1]})[0] == 200)
            assert ask(port, "POST", "/predict", {"x": [0, 0, 1]})[1]["class"] == 2
            command = {"id": "1", "name": "restart", "app": "main", "args": {}}
            server.publish(protocol.device_topic("pi-1", "command"), protocol.encode(command), 1)
            port = int(process.read_until(r"http://127\.0\.0\.1:(\d+)")[1])
            until("the model again", lambda: ask(port, "POST", "/predict", {"x": [0, 1, 0]})[0] == 200)
            assert process.end() == 0
            until("the good-bye", lambda: presence(server, online=False))
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO ", process.lines[0])
        assert "INFO stopped" in process.lines[-1]
        assert "Traceback" not in "".join(process.lines)


def test_an_unreachable_broker_is_tried_for_ever_and_said(tmp_path: Path) -> None:
    config.save(tmp_path, provisioning())
    with agent("--state", str(tmp_path)) as process:
        assert process.read_until(r"no connection to the broker: (.*); next try in \d+ s")[1]
        process.read_until(r"no connection to the broker")
        assert process.end() == 0


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_refused_token_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refusal = {"error": "refused", "detail": "This token is not known.", "remedy": "Make a new one."}
    with answering(403, json.dumps(refusal).encode()) as (url, _):
        enrol = ["--server", url, "--token", "t", "--device", "pi-1", "--state", str(tmp_path)]
        assert "ERROR" in (line := said(capfd, "enrol", *enrol))
        assert "This token is not known. Make a new one." in line
        assert "This token is not known" in said(capfd, "run", *enrol)


def test_everything_else_that_stops_it_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path / "state")]
    assert "enrol first" in said(capfd, "run", *state)
    assert "--token needs --server and --device" in said(capfd, "run", *state, "--token", "t")
    nobody = ["--server", "http://127.0.0.1:1", "--token", "t", "--device", "pi-1"]
    assert "cannot reach http://127.0.0.1:1" in said(capfd, "enrol", *state, *nobody)
    config.save(tmp_path / "state", provisioning(runtime="tflite-micro"))
    assert "runtime tflite-micro does not run on this agent" in said(capfd, "run", *state)


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path: Path) -> None:
    config.save(tmp_path, provisioning())
    hide = "import sys; sys.modules['onnxruntime'] = None; from device_agent.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", hide, "run", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "onnxruntime is not installed; run: pip install 'tinyfleet[agent]'" in done.stderr


def test_a_port_that_is_none_is_refused_with_the_usage(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--state", "x", "--http", "65536"])
    assert ended.value.code == 2
    assert "'65536' is no port (0 to 65535)" in capfd.readouterr().err
