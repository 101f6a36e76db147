"""A limited child hands back results and errors, and can neither outgrow its limits nor its parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compression_jobs.pipeline.errors import Cancelled, Refused, SandboxError
from compression_jobs.pipeline.sandbox import Limits, run_limited


def echo(value, path):
    return {"value": value, "path": path, "is_path": isinstance(path, Path), "pid": os.getpid()}


def refuse():
    raise Refused(
        "groups = 3 is not supported", node="Conv_12", remedy="use 1", problems=["Conv_12", "Conv_13"]
    )


def divide(by):
    return 1 / by


def crash():
    print("about to read address 0")
    ctypes.string_at(0)


def spin():
    while True:
        pass


def fill_memory():
    return len(bytearray(3 << 30))


def talk():
    return "x" * (2 << 20)


def write_file(path):
    path.write_bytes(b"x" * (2 << 20))


def chatter():
    for _ in range(200):
        os.write(1, b"y" * 65536)
    return "done"


def environment():
    return dict(os.environ)


def tell_pid_and_hang(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)


def test_results_arguments_and_paths_cross_and_the_child_is_another_process(tmp_path):
    answer = run_limited(echo, {"a": [1, None, float("inf")]}, tmp_path)
    assert answer["value"] == {"a": [1, None, float("inf")]}
    assert answer["path"] == tmp_path
    assert answer["is_path"]
    assert answer["pid"] != os.getpid()


def test_a_refusal_arrives_as_it_was_raised():
    with pytest.raises(Refused) as caught:
        run_limited(refuse)
    assert str(caught.value) == "Conv_12: groups = 3 is not supported; use 1"
    assert caught.value.problems == ["Conv_12", "Conv_13"]


def test_another_exception_says_which_and_keeps_the_trace():
    with pytest.raises(SandboxError, match="divide failed: ZeroDivisionError: division by zero") as caught:
        run_limited(divide, 0)
    assert "return 1 / by" in "".join(caught.value.__notes__)


def test_a_crash_is_an_error_with_the_last_words():
    with pytest.raises(SandboxError, match="Segmentation fault") as caught:
        run_limited(crash)
    assert isinstance(caught.value.__notes__, list)


@pytest.mark.parametrize(
    ("function", "limits", "reason"),
    [
        (spin, Limits(seconds=1), "spin took more than 1 s"),
        (fill_memory, Limits(memory_bytes=1 << 30), "needs more than 1 GiB of memory"),
        (talk, Limits(output_bytes=1 << 20), "answered with more than 1048576 bytes"),
    ],
)
def test_limits_hold(function, limits, reason):
    with pytest.raises(SandboxError, match=reason):
        run_limited(function, limits=limits)


def test_files_are_limited(tmp_path):
    with pytest.raises(SandboxError, match="File too large"):
        run_limited(write_file, tmp_path / "big", limits=Limits(file_bytes=1 << 20))
    assert (tmp_path / "big").stat().st_size <= 1 << 20


def test_endless_talk_is_drained():
    assert run_limited(chatter) == "done"


def test_secrets_stay_with_the_parent(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "do not tell")
    seen = run_limited(environment)
    assert "SECRET_KEY" not in seen
    assert seen["OMP_NUM_THREADS"] == "1"


def test_cancelling_ends_the_child(tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(Cancelled):
        run_limited(tell_pid_and_hang, note, cancelled=lambda: note.exists() and note.read_text() != "")
    assert _gone(int(note.read_text()))


def test_a_lambda_is_refused_before_anything_starts():
    with pytest.raises(ValueError, match="cannot be imported by name"):
        run_limited(lambda: 1)


def test_the_child_dies_with_a_parent_killed_by_kill_9(tmp_path):
    note = tmp_path / "pid"
    program = f"from pathlib import Path; from compression_jobs.pipeline.sandbox import run_limited; import {__name__} as t; run_limited(t.tell_pid_and_hang, Path({str(note)!r}))"
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    parent = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path})
    try:
        _wait_for(lambda: note.exists() and note.read_text())
        parent.send_signal(signal.SIGKILL)
    finally:
        parent.kill()
        parent.wait()
    assert _gone(int(note.read_text()))


def _gone(pid):
    return _wait_for(lambda: not _alive(pid))


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    # A dead child whose adopter has not collected it yet is as good as gone.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def _wait_for(condition):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
