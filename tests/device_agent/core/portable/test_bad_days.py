"""Days on which more goes wrong than a lost chunk: no broker, no room, no heap, and a clock that jumps."""

from device_agent.core.agent import NoModel
from tests.device_agent.core.portable import failing_broker
from tests.device_agent.core.portable.bench import CRASHING, TRIAL, Bench, model
from tests.device_agent.core.portable.test_install import installed, refused, started

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


def test_a_model_that_fits_only_alone_is_installed_while_the_one_that_serves_is_put_aside():
    b = installed(started())
    number, _ = b.agent.predict([1])
    b.hungry = 1  # the next load
    b.deliver(model(2), "second")
    b.run(lambda: b.hungry == 0)
    refused(lambda: b.agent.predict([1]), NoModel, "makes room")
    assert not b.agent.label(number, 1)  # its model is gone
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded" and b.serving() == 2
    said = [m for m in b.broker.messages("status") if "no answers until" in m.get("reason", "")]
    assert [(m["state"], m["delivery"], m["attempt"]) for m in said] == [("downloading", "second", 1)]


def test_a_model_put_aside_answers_while_the_broker_is_gone():
    b = installed(started())
    b.hungry = 1
    b.deliver(model(2), "second")
    b.run(lambda: b.hungry == 0)
    b.broker.faults = [failing_broker.DROP] * 1000
    b.deliver(model(3), "third")
    delivery = b.agent.apps["main"].delivery
    b.run(lambda: delivery.install is not None and delivery.install.download is not None)
    delivery._make_room(b.clock.ticks_ms())  # as by a heap that is full before the download begins
    b.run(lambda: delivery.install is not None and delivery.install.download is not None)
    assert b.serving() is None
    b.broker.up = False
    b.run(lambda: b.serving() is not None)
    b.broker.up, b.broker.faults = True, []
    b.run(lambda: b.ended("third"))
    assert b.outcome() == "succeeded" and b.serving() == 3


def test_a_heap_too_small_for_a_new_model_ends_the_delivery_and_the_old_one_answers():
    b = installed(started())
    b.deliver(model(2), "second")
    b.run(lambda: b.serving() == 2 and b.ended("second"))
    b.too_large = 3
    b.deliver(model(3), "third")
    b.run(lambda: b.ended("third"))
    assert b.outcome() in ("failed", "rejected") and b.serving() == b.installed() == 2
    assert failing_broker.digest(model(2)) == b.agent.apps["main"].installed()["artifact"]
    assert b.restarts == 3  # once an attempt


def in_pieces(can_restart=True):
    """A bench whose heap has no hole left when the second model comes."""
    b = Bench()
    b.can_restart = can_restart
    b.boot()
    installed(b).in_pieces = True
    b.deliver(model(2), "second")
    return b


def test_a_heap_in_pieces_is_mended_by_a_new_start_that_installs_before_it_serves():
    b = in_pieces()
    b.run(lambda: b.restarts == 1 and not b.in_pieces)
    refused(lambda: b.agent.predict([1]), NoModel, "makes room")
    b.run(lambda: b.ended("second"))
    assert (b.outcome(), b.serving(), b.restarts) == ("succeeded", 2, 1)
    said = [m for m in b.broker.messages("status") if "in pieces" in m.get("reason", "")]
    assert [(m["state"], m["delivery"], m["attempt"]) for m in said] == [("downloading", "second", 1)]
    assert not b.broker.messages("hello")[-1]["apps"]["main"]["serving"]  # so all of its heap was free then


def test_after_a_new_start_without_a_connection_the_old_model_serves():
    b = in_pieces()
    b.run(lambda: b.restarts == 1)
    b.storage.remove("main.b.model")  # something is left to be fetched
    b.broker.up = False
    b.run(lambda: b.serving() == 1, minutes=3)
    b.broker.up = True
    b.run(lambda: b.ended("second"))
    assert (b.outcome(), b.serving()) == ("succeeded", 2)


def test_a_heap_in_pieces_where_nobody_can_start_the_agent_again_costs_the_delivery_only():
    b = in_pieces(can_restart=False)
    b.run(lambda: b.ended("second"))
    assert (b.outcome(), b.restarts) == ("failed", 0)
    b.in_pieces = False
    b.run(lambda: b.serving() == 1)


def rolled_back_without_room(b):
    """Let a model err on trial when the heap has no room for the one before."""
    b.deliver(model(2, fault=CRASHING), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    b.in_pieces = True
    for _ in range(3):
        refused(lambda: b.agent.predict([1]), ValueError)
    return b


def test_a_model_that_finds_no_room_to_come_back_is_served_after_a_new_start():
    b = rolled_back_without_room(installed(started()))
    b.run(lambda: b.ended("second"))
    assert (b.outcome(), b.serving()) == ("rolled_back", None)
    b.run(lambda: b.serving() == 1, minutes=1)
    assert b.restarts == 1


def test_a_heap_too_full_to_read_a_file_keeps_no_model_from_coming_back():
    b = rolled_back_without_room(installed(started()))
    b.storage.starved = 3
    b.run(lambda: b.ended("second"))
    b.in_pieces = False
    b.run(lambda: b.serving() == 1, minutes=1)
    assert b.restarts == 0


def test_a_heap_that_is_full_after_a_start_costs_a_while_not_the_model():
    b = installed(started())
    held = b.agent.apps["main"].installed()
    for fault in ("hungry", "starved"):
        b.boot()
        setattr(b if fault == "hungry" else b.storage, fault, 3)
        b.run(lambda: b.serving() == 1, minutes=1)
        assert b.agent.apps["main"].installed() == held and b.agent.apps["main"].state["manifest"]


def test_a_model_that_no_heap_has_room_for_after_a_start_makes_way_for_the_one_before():
    b = installed(started())
    b.deliver(model(2), "second")
    b.run(lambda: b.ended("second"))
    b.broker.up = False
    b.too_large = 2
    b.boot()
    b.run(lambda: b.serving() == 1, minutes=1)
    assert b.restarts == 0


def test_a_file_that_went_bad_while_the_agent_started_afresh_never_serves():
    b = in_pieces()
    b.run(lambda: b.due or b.restarts)
    b.storage.files["main.a.model"] = b.storage.files["main.a.model"][:-1] + b"!"
    b.storage.remove("main.b.model")
    b.broker.up = False
    b.settle(3)
    assert b.serving() is None and b.honest()
    b.broker.up = True
    b.run(lambda: b.ended("second"))
    assert (b.outcome(), b.serving()) == ("succeeded", 2)


def test_a_self_test_that_is_asked_for_while_no_model_answers_says_why_there_is_none():
    b = in_pieces()
    b.run(lambda: b.restarts == 1 and b.agent.device.online)
    b.command("selftest", "c1")
    b.run(lambda: any(m.get("command") == "c1" for m in b.broker.messages("status")))
    said = [m for m in b.broker.messages("status") if m.get("command") == "c1"]
    assert not said[0]["ok"] and "makes room" in said[0]["result"]["text"]


def test_a_report_that_finds_no_heap_is_counted_and_the_agent_goes_on():
    b = installed(started())
    b.settle(1)
    b.work(3)
    b.storage.starved = 1
    b.settle(1)
    b.work(2)
    b.settle(2)
    assert sum(m["dropped"] for m in b.broker.messages("report")) == 1


def test_a_heap_too_full_to_judge_a_manifest_gets_a_new_start():
    b = installed(started())
    b.unjudged = True
    b.deliver(model(2), "second")
    b.run(lambda: b.restarts == 1, minutes=2)
    b.unjudged = False
    b.run(lambda: b.ended("second"), minutes=2)
    assert (b.outcome(), b.serving(), b.restarts) == ("succeeded", 2, 1)


def test_a_manifest_that_no_heap_can_judge_costs_one_new_start_and_seldom_an_answer():
    b = installed(started())
    b.unjudged = True
    b.deliver(model(2), "second")
    b.run(lambda: b.restarts == 1, minutes=2)
    b.run(lambda: b.serving() == 1, minutes=2)
    b.settle(1)
    said = len(b.lines)
    b.settle(10)
    assert (b.serving(), b.restarts) == (1, 1)
    assert len([line for line in b.lines[said:] if "cannot be taken in" in line]) <= 11
    b.unjudged = False
    b.run(lambda: b.ended("second"), minutes=2)
    assert b.serving() == 2


def test_a_heap_too_full_to_end_subscriptions_still_makes_room():
    b = installed(started())
    b.broker.faults = [failing_broker.DROP] * 1000
    b.deliver(model(2), "second")
    delivery = b.agent.apps["main"].delivery
    b.run(lambda: delivery.install is not None and delivery.install.download is not None)
    b.steps(20)
    b.transport.starved = True
    delivery._make_room(b.clock.ticks_ms())  # as by a heap that is full before the download begins
    assert b.serving() is None
    b.transport.starved, b.broker.faults = False, []
    b.run(lambda: b.ended("second"))
    assert (b.outcome(), b.serving()) == ("succeeded", 2)
