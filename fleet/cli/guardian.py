"""Ends what a supervisor started when the supervisor itself is gone, even by `kill -9`; run as a script.

Reads lines `+<group>` and `-<group>` from standard input. When that ends without a last line `.`, every process group
still listed is asked to end, and killed a little later. A pipe's end is the one sign of death that no signal can
suppress and that Linux and macOS both give. Standard library only: it starts in isolated mode, in milliseconds.
"""

import os
import signal
import sys
import time

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.1


def guard() -> None:
    """Follow the list until the supervisor says goodbye or dies."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        text = line.strip()
        if text == ".":
            return
        if text.startswith("+"):
            groups.add(int(text[1:]))
        elif text.startswith("-"):
            groups.discard(int(text[1:]))
    end_groups(groups)


def end_groups(groups: set[int], grace: float = GRACE_SECONDS) -> None:
    """Ask all process groups to end, wait up to `grace` seconds, then kill what is left."""
    deadline = time.monotonic() + grace
    alive = {group for group in groups if send(group, signal.SIGTERM)}
    while alive and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        alive = {group for group in alive if send(group, 0)}
    for group in alive:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Send a signal to a process group; False when nobody is left in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    guard()
