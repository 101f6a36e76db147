"""The agent in a Linux process: turns are fair, folders have one agent, applications use it from Python."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import onnx
import pytest

from device_agent import config
from device_agent.core import protocol
from device_agent.core.agent import NoModel
from device_agent.errors import AgentError
from device_agent.host import CLOCK_TRUSTED_FROM, Host, SystemClock, Turn, open_host
from device_agent.runtimes.onnx import OnnxRuntime
from device_agent.transports.loopback import Broker, LoopbackTransport
from tests.device_agent.conftest import provisioning
from tests.device_agent.server import Server, keys, model
from tests.services import until


def hosted(state: Path, broker: Broker) -> Host:
    fields = provisioning(keys=keys(), chunk_bytes=256)
    return Host(fields, LoopbackTransport(broker, "pi-1"), OnnxRuntime(), state)


def installed(agent: Host, broker: Broker, folder: Path) -> Server:
    """Deliver a first model and wait until it is installed; returns who may deliver more."""
    server = Server(lambda topic, payload: broker.publish(topic, payload, retain=True), "pi-1", 256)
    server.deliver(model(folder), "raspberry-pi-4")
    until("the model", lambda: agent.status()["apps"]["main"]["installed"])
    return server


def test_turns_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    turn = Turn()
    order: list[int] = []

    def take(number: int) -> None:
        with turn:
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    with turn:
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            until("the thread to wait", lambda waiting=waiting: len(turn._waiting) == waiting)
    # Whoever asks again at once, as the agent's loop does, comes after those that wait.
    with turn:
        order.append(99)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, 99]


def test_an_application_predicts_and_labels_in_its_own_process(state: Path, tmp_path: Path) -> None:
    broker = Broker()
    with hosted(state, broker) as agent:
        with pytest.raises(NoModel, match="no model installed yet"):
            agent.predict([1, 0, 0])
        installed(agent, broker, tmp_path)
        prediction, outputs = agent.predict([0, 1, 0])
        assert outputs[0].tolist() == [0, 8, 0]
        assert agent.label(prediction, "middle")
        assert not agent.label(prediction, "middle")
    last = [payload for topic, payload in broker.seen if topic.endswith("/presence")][-1]
    assert protocol.parse_presence(last)["online"] is False
    reports = [protocol.parse_report(payload) for topic, payload in broker.seen if topic.endswith("/report")]
    assert sum(report["n"] for report in reports) <= 1


def test_a_model_survives_a_restart_and_serves_without_a_broker(state: Path, tmp_path: Path) -> None:
    broker = Broker()
    with hosted(state, broker) as agent:
        installed(agent, broker, tmp_path)
    broker.stop()
    with hosted(state, broker) as again:
        until("the model to serve", lambda: again.status()["apps"]["main"]["phase"] == "live")
        assert again.classify([0, 0, 1])[2] == 2


def test_two_agents_never_share_a_state_folder(state: Path) -> None:
    with hosted(state, Broker()), pytest.raises(AgentError, match="another agent already runs on"):
        hosted(state, Broker())
    with hosted(state, Broker()):
        assert (state / "agent.lock").exists()


def test_the_command_restart_ends_the_loop_to_start_again(state: Path) -> None:
    broker = Broker()
    with hosted(state, broker) as agent:
        until("a hello", lambda: any(topic.endswith("/hello") for topic, _ in list(broker.seen)))
        command = {"id": "1", "name": "restart", "app": "main", "args": {}}
        broker.publish(protocol.device_topic("pi-1", "command"), protocol.encode(command))
        until("the restart", lambda: agent.restart_asked)


def test_an_unset_clock_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    now = clock.utc()
    assert now is not None
    assert now > CLOCK_TRUSTED_FROM
    monkeypatch.setattr("time.time", lambda: 86400.0)
    assert clock.utc() is None


def test_a_device_whose_state_folder_is_lost_starts_afresh_with_credentials_kept_elsewhere(
    tmp_path: Path,
) -> None:
    config.save(tmp_path / "credentials", provisioning())
    epochs = []
    for _ in range(2):
        agent = open_host(tmp_path / "state", tmp_path / "credentials")
        with agent:
            assert agent.status()["boot"] == 1
        record = next((tmp_path / "state").glob("state.?")).read_bytes()
        epochs.append(json.loads(record[8:])["epoch"])
        shutil.rmtree(tmp_path / "state")
    assert epochs[0] != epochs[1]


def test_an_unknown_runtime_in_the_provisioning_is_one_sentence(state: Path) -> None:
    config.save(state, provisioning(runtime="tflite-micro"))
    with pytest.raises(AgentError, match="runtime tflite-micro does not run on this agent"):
        open_host(state)


def test_a_model_in_the_shadow_is_compared_on_the_same_inputs(state: Path, tmp_path: Path) -> None:
    broker = Broker()
    with hosted(state, broker) as agent:
        server = installed(agent, broker, tmp_path)
        before = agent.status()["apps"]["main"]["installed"]
        other = onnx.load_from_string(model(tmp_path))
        other.doc_string = "the same, but another file"
        rules = {"min_inferences": 5, "min_labelled": 5, "max_seconds": 600, "shadow": True}
        server.deliver(other.SerializeToString(), "raspberry-pi-4", rules)

        def over() -> bool:
            prediction, _ = agent.predict([0, 1, 0])
            agent.label(prediction, "middle")
            outcome = agent.status()["apps"]["main"]["outcome"]
            return bool(outcome and outcome["delivery"] == "delivery-2")

        until("the shadow's end", over)
        assert agent.status()["apps"]["main"]["installed"] == before

        def said() -> list[dict[str, Any]]:
            heard = [json.loads(payload) for topic, payload in broker.seen if topic.endswith("/status")]
            return [m for m in heard if m.get("delivery") == "delivery-2" and m["state"] == "succeeded"]

        until("the comparison", said)
        evidence = said()[0]["evidence"]
        assert evidence["agreed"] == evidence["compared"] >= 5
        assert evidence["correct"] == evidence["old_correct"] == evidence["labelled"] >= 5
        assert min(evidence["old_us"], evidence["new_us"]) > 0
