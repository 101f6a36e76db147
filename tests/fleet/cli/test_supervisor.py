"""The supervisor with tiny real children: start, crash, back-off, stop, and the death of the supervisor itself."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.cli.supervisor import BACKOFF_MAX_SECONDS, Service, StartError, Supervisor, shorten
from tests.services import until

FOREVER = "while :; do sleep 0.05; done"


class Clock:
    """Time that tests move by hand; it also passes on its own, so deadlines end."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def shell(name: str, script: str, ready=lambda: True, **options) -> Service:
    return Service(name, ["sh", "-c", script], ready, os.environ, **options)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str], clock: Clock) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "log", said.append, clock)
    yield made
    made.stop(grace=0.2)


def test_children_start_in_order_when_the_one_before_is_ready(supervisor, tmp_path):
    sign = tmp_path / "ready"
    supervisor.start(shell("first", f"sleep 0.3; touch {sign}; {FOREVER}", sign.exists))
    assert sign.exists()
    supervisor.start(shell("second", FOREVER))
    assert set(supervisor.pids) == {"first", "second"}


def test_a_child_that_ends_at_once_is_an_error_with_its_last_words(supervisor):
    with pytest.raises(
        StartError, match=r"(?s)greeter ended at once; .*greeter\.log ends with:\n.*no such door"
    ):
        supervisor.start(shell("greeter", "echo no such door; exit 3", lambda: False))


def test_a_child_that_never_gets_ready_is_named(supervisor):
    with pytest.raises(StartError, match="sleeper was not ready within 0 s"):
        supervisor.start(shell("sleeper", FOREVER, lambda: False, ready_seconds=0.2))


def test_a_crashed_child_is_started_again_after_a_growing_pause_and_said(supervisor, said, clock):
    supervisor.start(shell("fragile", "echo went wrong; exit 7"))
    pauses = []
    for _ in range(7):
        until("the crash", lambda: supervisor.watch_once() or "fragile" not in supervisor.pids)
        pauses.append(float(said[-1].partition("again in ")[2].partition(" s")[0]))
        supervisor.watch_once()
        assert "fragile" not in supervisor.pids
        clock.ahead += pauses[-1]
        supervisor.watch_once()
        assert said[-1] == "fragile runs again"
    assert pauses == [1, 2, 4, 8, 16, 30, BACKOFF_MAX_SECONDS]
    assert "fragile ended with exit code 7" in said[0]
    assert "went wrong" in said[0]


def test_a_child_that_ran_steadily_starts_again_soon(supervisor, said, clock):
    supervisor.start(shell("steady", FOREVER))
    supervisor.children["steady"].backoff = 16
    clock.ahead += 61
    os.kill(supervisor.pids["steady"], signal.SIGKILL)
    until("the crash", lambda: supervisor.watch_once() or said)
    assert "was killed by SIGKILL; it starts again in 1 s" in said[0]


def test_what_a_crashed_child_left_running_ends_with_it(supervisor, tmp_path):
    note = tmp_path / "pid"
    supervisor.start(
        shell(
            "parent", f"({FOREVER}) & echo $! > {note}; {FOREVER}", lambda: note.exists() and note.read_text()
        )
    )
    grandchild = int(note.read_text())
    os.kill(supervisor.pids["parent"], signal.SIGKILL)
    until("the grandchild's end", lambda: supervisor.watch_once() or not alive(grandchild))


def test_stop_asks_the_last_first_and_kills_who_does_not_listen(supervisor, tmp_path, said):
    order = tmp_path / "order"
    supervisor.start(shell("base", f"trap 'echo base >> {order}; exit' TERM; {FOREVER}"))
    supervisor.start(
        shell("top", f"trap 'echo top >> {order}; exit' TERM; {FOREVER}"),
        shell("deaf", f"trap '' TERM; echo deaf > {tmp_path}/deaf; {FOREVER}", (tmp_path / "deaf").exists),
    )
    until("the traps", lambda: (tmp_path / "deaf").exists())
    pids = list(supervisor.pids.values())
    supervisor.stop(grace=1.0)
    assert order.read_text().split() == ["top", "base"]
    assert not any(map(alive, pids))
    assert said == ["deaf did not end within 1 s and is killed"]


def test_children_end_when_the_supervisor_is_killed(tmp_path):
    script = textwrap.dedent("""
        import os, sys, time
        from pathlib import Path
        from fleet.cli.supervisor import Service, Supervisor
        s = Supervisor(Path(sys.argv[1]), print)
        polite = "trap 'exit' TERM; while :; do sleep 0.05; done"
        s.start(Service("a", ["sh", "-c", polite], lambda: True, os.environ))
        s.start(Service("b", ["sh", "-c", polite], lambda: True, os.environ))
        print(*s.pids.values(), flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert all(map(alive, pids))
    assert len(pids) == 2
    process.kill()
    process.wait()
    until("the children's end", lambda: not any(map(alive, pids)))


def test_a_lost_guardian_is_replaced(supervisor):
    supervisor.start(shell("child", FOREVER))
    first = supervisor.guard.pid
    os.kill(first, signal.SIGKILL)
    until("the guardian's end", lambda: supervisor.guard.pid is None)
    supervisor.watch_once()
    assert supervisor.guard.pid not in (None, first)


def test_the_devices_of_a_killed_demonstration_end(tmp_path):
    script = textwrap.dedent("""
        import pathlib, sys, time
        from fleet.cli.demo.agents import Devices, free_port
        folder = pathlib.Path(sys.argv[1])
        (folder / "rows.json").write_text('{"x": [[0.0]], "y": [0]}')
        devices = Devices(folder / "devices", "http://127.0.0.1:9")
        devices.ports["field-1"] = free_port()
        devices.start_workload("field-1", folder / "rows.json", 1)
        print(devices.pid("field-1.workload"), flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert alive(child)
    process.kill()
    process.wait()
    until("the device's end", lambda: not alive(child))


def test_a_log_does_not_grow_for_ever(tmp_path):
    log = tmp_path / "chatty.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 2000)
        writer.flush()
        shorten(log, limit=1000)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "chatty.log.1").stat().st_size == 2000


def test_a_command_that_fails_shows_its_error_and_keeps_its_answer_out_of_the_log(supervisor):
    assert supervisor.run("ask", ["sh", "-c", "echo secret"], os.environ) == "secret"
    assert "secret" not in supervisor.log("ask").read_text()
    with pytest.raises(StartError, match=r"(?s)ask failed; .*no table"):
        supervisor.run("ask", ["sh", "-c", "echo no table >&2; exit 1"], os.environ)
