"""Days on which more goes wrong than a lost chunk: no broker, no room, no heap, and a clock that jumps."""

from tests.device_agent.core.portable import failing_broker
from tests.device_agent.core.portable.bench import Bench, model
from tests.device_agent.core.portable.test_install import installed, started

HOUR, NOW = 3600, 1000


def test_a_broker_gone_for_an_hour_costs_an_hour():
    b = installed(started())
    b.deliver(model(2), "second")
    b.run(lambda: "downloading" in b.broker.states("second"))
    b.steps(6)
    b.broker.up = False
    b.work(20)
    b.settle(60)
    b.work(20)
    assert b.serving() == 1 and not b.ended("second")
    b.broker.up = True
    b.run(lambda: b.ended("second"), minutes=10)
    assert b.serving() == b.installed() == 2
    b.settle(2)
    assert sum(report["n"] for report in b.broker.messages("report")) >= 40


def test_a_clock_that_jumps_neither_ends_a_trial_nor_trusts_the_expired():
    b = Bench()
    b.boot()
    b.clock.seconds = NOW
    installed(b)
    b.deliver(model(2), "second", expires_at=NOW + HOUR, issued_at=NOW)
    for jump in (-NOW, 400 * 24 * HOUR, 0):
        b.steps(3)
        b.clock.seconds = NOW + jump
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded" and b.serving() == 2
    b.clock.seconds = None  # the battery is empty: expiry is not judged
    b.deliver(model(3), "third", expires_at=1)
    b.run(lambda: b.ended("third"))
    assert b.serving() == 3


def full_disks(every):
    """A disk that is full from every `every`-th write of an install on, for a while; returns how many were tried."""
    begun, ended = _full_at(0)
    for number in range(1, ended - begun + 1, every):
        _full_at(number)
    return len(range(1, ended - begun + 1, every))


def _full_at(number):
    b = installed(started())
    begun = b.storage.operations
    b.storage.full_at = begun + number if number else 0
    b.deliver(model(2, size=600), "second")
    for _ in range(20):
        b.steps(25)
        assert b.serving() in (1, 2)
    b.storage.full = False
    b.settle(2)
    b.run(lambda: b.ended("second") or b.serving() == 2)
    b.settle(2)
    assert b.serving() == b.installed(), (number, b.lines[-4:])
    return begun, b.storage.operations


def test_a_disk_that_is_full_at_a_write_of_an_install_costs_time_only():
    assert full_disks(every=5) > 3


def test_heap_that_is_exhausted_while_loading_fails_the_delivery_and_keeps_the_model():
    b = installed(started())
    b.hungry = 1  # the next load
    b.deliver(model(2), "second")
    b.run(lambda: b.hungry == 0)
    assert b.serving() == 1
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded" and b.serving() == 2  # there was room again
    b.hungry = 100
    b.deliver(model(3), "third")
    b.run(lambda: b.ended("third"))
    assert b.outcome() in ("failed", "rejected") and b.serving() == b.installed() == 2
    assert failing_broker.digest(model(2)) == b.agent.apps["main"].installed()["artifact"]
