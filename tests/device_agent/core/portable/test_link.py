"""The connection: presence, hello, back-off, the spool behind it, and commands."""

from device_agent.core import protocol
from tests.device_agent.core.portable import failing_broker
from tests.device_agent.core.portable.bench import Bench, model
from tests.device_agent.core.portable.test_install import installed, started


def test_presence_rises_with_every_connection_and_boot_and_is_the_will():
    b = started()
    b.transport.up = False
    b.run(lambda: len(b.broker.messages("hello")) == 2)
    b.boot()
    b.run(lambda: len(b.broker.messages("hello")) == 3)
    sessions = [m["session"] for m in b.broker.messages("presence")]
    assert sessions == [65537, 65538, 131073]
    will = protocol.parse_presence(b.transport.will[1])
    assert (will["online"], will["session"]) == (False, 131073)


def test_presence_is_repeated_as_heartbeat():
    b = started()
    b.settle(5)
    assert 8 <= len(b.broker.messages("presence")) <= 14


def test_a_refused_connection_is_tried_for_ever_with_growing_pauses_and_said():
    b = Bench()
    b.broker.refuses = "not authorised"
    b.boot()
    b.settle(30)
    tries = [line for line in b.lines if "not authorised" in line]
    assert 25 <= len(tries) <= 60
    b.broker.refuses = None
    b.run(lambda: b.agent.device.online, minutes=3)


def test_reports_wait_for_the_broker_and_arrive_in_order_once():
    b = installed(started())
    b.broker.up = False
    for _ in range(5):
        b.work(10)
        b.settle(1)
    b.boot()  # the spool survives
    b.broker.up = True
    b.run(lambda: sum(m["n"] for m in b.broker.messages("report")) == 50)
    b.settle(2)
    reports = b.broker.messages("report")
    assert sum(m["n"] for m in reports) == 50 and sum(m["labelled"] for m in reports) == 50
    assert [m["sequence"] for m in reports] == sorted(m["sequence"] for m in reports)
    assert sum(m["correct"] for m in reports) == 50


def test_what_was_not_acknowledged_is_sent_again_on_the_next_connection():
    b = installed(started())
    b.settle(1)
    b.broker.acknowledges = False
    b.work(3)
    b.command("report_now", "c1")
    b.run(lambda: len(b.broker.messages("report")) == 1)
    b.transport.up = False
    b.broker.acknowledges = True
    b.run(lambda: len(b.broker.messages("report")) == 2)
    first, second = b.broker.messages("report")
    assert first == second
    b.settle(3)
    assert len(b.broker.messages("report")) == 2 and b.agent.status()["waiting"] == 0


def test_a_broker_that_swallows_messages_is_left():
    b = installed(started())
    b.settle(1)
    b.broker.acknowledges = False
    b.work(1)
    b.run(lambda: any("not acknowledged" in line for line in b.lines), minutes=3)


def test_a_full_spool_drops_the_oldest_and_counts_them():
    b = installed(started())
    b.broker.up = False
    for _ in range(200):
        b.work(1)
        b.settle(1)
    b.broker.up = True
    b.settle(5)
    reports = b.broker.messages("report")
    assert reports[-1]["sequence"] >= 199 and len(reports) < 150
    b.work(1)
    b.settle(2)
    reports = b.broker.messages("report")
    assert sum(m["dropped"] for m in reports) + len(reports) >= 195


def test_hello_says_what_a_lost_status_would_have():
    b = installed(started())
    b.command("hello", "c1")
    b.settle(1)
    facts = b.broker.messages("hello")[-1]["apps"]["main"]
    assert facts["installed"]["delivery"] == "first" and facts["installed"][
        "artifact"
    ] == failing_broker.digest(model(1))
    assert facts["outcome"] == {
        "delivery": "first",
        "state": "succeeded",
        "reason": "installed without trial",
    }
    assert facts["sequence"] == 1 and facts["delivery"] is None


def answers(b):
    return {m["command"]: m["ok"] for m in b.broker.messages("status") if m["kind"] == "answer"}


def test_commands_are_answered_and_done_once():
    b = started()
    b.command("selftest", "c1")
    b.settle(1)
    installed(b)
    b.command("selftest", "c2")
    b.command("selftest", "c3", app="attic")
    b.command("restart", "c4")
    b.command("dance", "c5")
    b.settle(1)
    assert answers(b) == {"c1": False, "c2": True, "c3": False, "c4": True}
    assert b.restarts == 1
    b.boot()
    b.run(lambda: b.agent.device.online)
    b.command("restart", "c4")  # comes again, because its answer may have been lost
    b.settle(1)
    assert b.restarts == 1


def test_an_expired_command_is_left():
    b = started()
    b.clock.seconds = 5000
    b.command("report_now", "c1", expires_at=4000)
    b.settle(1)
    assert answers(b) == {}


def test_without_storage_the_device_stays_offline_but_serves():
    b = installed(started())
    b.storage.full = True
    b.boot()
    b.settle(1)
    assert b.serving() == 1 and not b.agent.device.online
    assert any("offline until" in line for line in b.lines)
    b.storage.full = False
    b.run(lambda: b.agent.device.online)


def test_an_orderly_end_says_goodbye():
    b = started()
    b.agent.close()
    assert b.broker.messages("presence")[-1]["online"] is False
