"""Names every child process to a guardian, which ends them when this process is gone, even by `kill -9`."""

import contextlib
import subprocess
import sys
from collections.abc import Iterable

from fleet.cli import guardian


class Guard:
    """The guardian of this process's children; it is started with the first child and replaced when it is lost."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the guardian that watches now."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def add(self, group: int) -> None:
        """Have a process group ended with this process."""
        self._tell(f"+{group}")

    def remove(self, group: int) -> None:
        """Forget a process group that has ended, before its number is given to somebody else."""
        self._tell(f"-{group}")

    def renew(self, groups: Iterable[int]) -> None:
        """Start another guardian for these groups when the one there was has died."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            for group in groups:
                self.add(group)

    def dismiss(self) -> None:
        """End the guardian; it leaves alone whatever still runs."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(b".\n")
                self._process.stdin.close()
        self._process.wait()
        self._process = None

    def _tell(self, line: str) -> None:
        if self._process is None:
            command = [sys.executable, "-I", "-S", guardian.__file__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # `renew` starts another, which learns of all groups
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
