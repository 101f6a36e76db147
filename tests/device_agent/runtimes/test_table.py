"""Runtimes are found by name; one that is not installed says how to get it."""

import subprocess
import sys

import pytest

from device_agent.errors import AgentError, MissingPackageError
from device_agent.runtimes.table import RUNTIMES, runtime


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_every_runtime_of_the_table_carries_its_name(name: str) -> None:
    assert runtime(name).name == name


def test_an_unknown_runtime_names_the_known_ones() -> None:
    with pytest.raises(
        AgentError, match="tflite-micro does not run on this agent; it has onnxruntime, litert"
    ):
        runtime("tflite-micro")


@pytest.mark.parametrize(
    ("name", "module", "remedy"),
    [
        ("onnxruntime", "onnxruntime", "pip install 'tinyfleet[agent]'"),
        ("litert", "ai_edge_litert", "pip install 'tinyfleet[agent-litert]'"),
        ("micropython", "numpy", "pip install 'tinyfleet[agent]'"),
    ],
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, remedy: str
) -> None:
    for loaded in [
        m for m in sys.modules if m.split(".")[0] == module or m.startswith("device_agent.runtimes.")
    ]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError) as raised:
        runtime(name)
    assert remedy in str(raised.value)


def test_importing_the_table_loads_no_runtime() -> None:
    code = "import sys, device_agent.runtimes.table; print([m for m in sys.modules if 'onnx' in m or 'litert' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
