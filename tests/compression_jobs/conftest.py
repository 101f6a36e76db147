"""What tests of jobs share: the queue as a list, and children that answer at once."""

from typing import Any

import pytest

from compression_jobs import runner
from fleet.registry import leases, queueing
from tests.compression_jobs import pretend


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """The tasks that were handed over, in order."""
    handed_over: list[tuple[str, tuple[Any, ...]]] = []
    monkeypatch.setattr(queueing, "send", lambda task, *args, **_: handed_over.append((task, args)))
    return handed_over


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`child(pretend.refuse)` lets jobs run that function in their child process instead of the pipeline."""
    return lambda function=pretend.find: monkeypatch.setattr(runner, "compress", function)


@pytest.fixture
def one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are not renewed: the test holds the database in one transaction, which their thread would wait for."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 600)
