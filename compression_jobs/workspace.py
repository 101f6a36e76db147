"""Folders that jobs work in: one for each attempt, so that a worker that was given up never disturbs the next."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings


def _root() -> Path:
    return Path(settings.VAR) / "jobs"


@contextmanager
def workspace(job: int, attempt: int) -> Iterator[Path]:
    """A fresh folder for one attempt, removed when it ends."""
    folder = _root() / f"{job}-{attempt}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def workspaces() -> dict[int, list[Path]]:
    """The folders on this machine, by job."""
    found: dict[int, list[Path]] = {}
    for folder in _root().glob("*-*"):
        job, _, attempt = folder.name.partition("-")
        if job.isdecimal() and attempt.isdecimal():
            found.setdefault(int(job), []).append(folder)
    return found
