"""Folders that jobs work in; what a killed worker finished there is found again by the next attempt on this machine."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from django.conf import settings


def _root() -> Path:
    return Path(settings.VAR) / "jobs"


@contextmanager
def workspace(job: int, attempt: int) -> Iterator[Path]:
    """The job's folder, or one of its own for an attempt while a given-up worker still holds it.

    It goes when the block ends without an error; after an error or a kill the next attempt goes on with it.
    """
    folder = _root() / str(job)
    held = _hold(folder)
    if held is None:
        folder = _root() / f"{job}-{attempt}"
        held = _hold(folder)
    try:
        yield folder
        with suppress(OSError):
            shutil.rmtree(folder)
    finally:
        if held is not None:
            held.close()


def _hold(folder: Path) -> IO[bytes] | None:
    """Lock the folder for as long as the file stays open; None when another living process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def workspaces() -> dict[int, list[Path]]:
    """The folders on this machine, by job."""
    found: dict[int, list[Path]] = {}
    for folder in _root().glob("*"):
        job = folder.name.partition("-")[0]
        if folder.is_dir() and job.isdecimal():
            found.setdefault(int(job), []).append(folder)
    return found
