"""A bundle as a stranger uses it: copied somewhere else and started there, the VM in place of the board."""

import argparse
import shutil
from pathlib import Path

import pytest

from device_agent.compiled import ARCHITECTURES, ROOT, compile_agent
from fleet.cli.verbs.boards import write_files
from tests.benchmarks import boards
from tests.device_agent import board
from tests.device_agent.test_vm import Fleet, broker, fleet  # noqa: F401
from tests.device_agent.transports.conftest import Broker
from tests.services import until

HEAP = "192k"
APP = """
from device_agent.board_host import NoModel

def work(agent, now_ms):
    try:
        prediction, outputs = agent.predict(bytes(1024))
        print("class", outputs[0].index(max(outputs[0])))
    except NoModel:
        pass
    return 200
"""


@pytest.fixture
def bundle(tmp_path: Path, broker: Broker) -> Path:  # noqa: F811
    """What `tinyfleet device bundle` writes after it enrolled the device."""
    made = tmp_path / "made"
    (made / "tinyfleet").mkdir(parents=True)
    board.provision(made / "tinyfleet", broker.config())
    return made


@pytest.mark.parametrize("target", sorted(set(ARCHITECTURES) - {"unix"}))
def test_a_bundle_for_each_board_comes_online_and_installs(
    target: str,
    bundle: Path,
    fleet: Fleet,  # noqa: F811
    tmp_path: Path,
) -> None:
    compile_agent(bundle, target)
    write_files(bundle, target, {"device": "pi-1", "broker": {"host": "192.0.2.1"}}, {"ssid": ""})
    copied = tmp_path / "board"
    copied.mkdir()
    for name in ("device_agent", "tinyfleet", "main.py"):  # those that README.txt names
        source = bundle / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copied / name)
    (copied / "app.py").write_text(APP)
    plan = board.dense_plan(hidden=8)  # bytecode in place of the board's machine code is slow
    fleet.server.deliver(plan, board.TARGET, None, "plan", board.self_test(plan, tmp_path))
    with board.powered(copied, "main.py", heap=HEAP) as process:
        fleet.until("hello", "hello", lambda message: True)
        assert fleet.outcome()["state"] == "succeeded"
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        until("an answer of the application", lambda: next(lines).startswith("class "))


@pytest.mark.parametrize("missing", ["wifi.json", "provision.json"])
def test_a_bundle_that_was_copied_in_part_says_what_is_missing(missing: str, bundle: Path) -> None:
    compile_agent(bundle, "rp2040")
    write_files(bundle, "rp2040", {"device": "pi-1", "broker": {"host": "192.0.2.1"}}, {"ssid": ""})
    (bundle / "tinyfleet" / missing).unlink()
    lines: list[str] = []
    with board.powered(bundle, "main.py", heap=HEAP) as process:
        assert process.stdout is not None
        while not lines or "starting again" not in lines[-1]:
            lines.append(next(process.stdout))
    assert f"tinyfleet/{missing} cannot be read" in lines[-2]
    assert not any("Traceback" in line for line in lines)


def test_the_table_of_what_fits_on_which_board_is_what_the_cost_model_says() -> None:
    table = boards.markdown(list(boards.run(argparse.Namespace(markdown=False))))
    assert table.strip() in (ROOT / "device_agent" / "README.md").read_text()
