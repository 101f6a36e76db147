"""`python -m tests.benchmarks`: each benchmark is one JSON line with what it measured, on how much, from which seed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as `make bench` does."""
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_benchmark_prints_one_json_line() -> None:
    done = bench("ingest", "--rounds", "1", "--seed", "3")
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    figures = json.loads(line)
    assert (figures["bench"], figures["n"], figures["seed"]) == ("ingest", 200, 3)
    assert figures["counted_twice"] == 0


def test_a_name_that_does_not_exist_names_those_that_do() -> None:
    done = bench("nothing")
    assert done.returncode == 2
    assert "no benchmark is called nothing; there are: " in done.stderr
    assert "ingest" in done.stderr
