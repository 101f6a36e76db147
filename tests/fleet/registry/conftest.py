"""What tests of the registry share: the queue as a list, instead of a server that is not there."""

from typing import Any

import pytest

from fleet.registry import checking, queueing

CHECKS = {"registry.check_version": checking.check_version, "registry.check_dataset": checking.check_dataset}


class Queue(list[tuple[str, tuple[Any, ...]]]):
    """Names and arguments of the tasks that were handed over; `work()` runs the checks among them."""

    def work(self) -> None:
        """Do what a worker would do."""
        while self:
            name, args = self.pop(0)
            CHECKS[name](*args)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """The tasks that were handed over, in order."""
    handed_over = Queue()
    monkeypatch.setattr(queueing, "send", lambda task, *args, **_: handed_over.append((task, args)))
    monkeypatch.setattr(queueing, "send_now", lambda task, *args, **_: handed_over.append((task, args)))
    return handed_over
