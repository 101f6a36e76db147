"""`make demo ONCE=1`, as a stranger would run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.cli.demo.agents import PLACES

pytestmark = pytest.mark.xdist_group("demo")


def test_the_demonstration_comes_out_right_and_leaves_nothing_running(tmp_path: Path) -> None:
    var = tmp_path / "var"
    command = [sys.executable, "-m", "fleet.cli.main", "demo", "--once", "--var", str(var)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr

    told = json.loads((var / "demo.json").read_text())
    assert [row["device"] for row in told["devices"]] == [place.name for place in PLACES]
    for row in told["devices"]:
        assert row["server_accuracy"]["value"] >= 0.9
        assert row["server_accuracy"]["n"] == 250
        assert row["device_accuracy"]["n"] >= 60
        assert row["p50_us"] <= row["p95_us"]
    assert {row["runtime"] for row in told["devices"]} == {place.runtime for place in PLACES}
    broken = told["broken_version"]
    assert broken["stopped_by"] == ["device trial", "gate"]
    assert (broken["exposed"], broken["restored"]) == (1, len(PLACES))
    assert broken["evidence"]["device"][0]["labelled"] >= 1
    assert len(told["steps"]) == 7
    assert processes_of(var) == []


def processes_of(var: Path) -> list[str]:
    """Command lines of processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended while we looked
        if str(var) in line and process.name != str(os.getpid()):
            found.append(line)
    return found
