"""A person at the device is asked before an installation, and says now, tonight or no."""

from tests.device_agent.core.portable.bench import Bench
from tests.device_agent.core.portable.test_install import refused, started

QUESTION = {"delivery": "d9", "model": "digits", "version": 2, "bytes": 9000}


def asked(b, number="q1", **args):
    b.command("consent", number, app="main", args=dict(QUESTION, **args))
    b.settle(1)
    return b


def said(b):
    b.settle(1)
    found = [m for m in b.broker.messages("status") if m["kind"] == "answer"]
    return [(m["command"], m["result"].get("consent")) for m in found]


def test_what_a_person_says_reaches_the_server_once():
    b = asked(started())
    assert said(b) == []  # nobody has said anything yet
    assert b.agent.status()["asks"]["main"]["version"] == 2
    asked(b)  # the server asks again at every connection
    assert b.agent.consent("tonight")
    assert not b.agent.consent("now")
    asked(b)
    assert said(b) == [("q1", "tonight")] and b.agent.status()["asks"] == {}


def test_an_answer_given_offline_arrives_later():
    b = asked(started())
    b.broker.up = False
    assert b.agent.consent("now")
    b.boot()
    b.broker.up = True
    b.run(lambda: b.agent.device.online)
    assert said(b) == [("q1", "now")]


def test_a_question_that_is_taken_back_waits_no_longer():
    b = asked(started())
    asked(b, "q2", delivery="")
    assert said(b) == [("q2", None)]
    assert not b.agent.consent("now")


def test_what_is_no_answer_and_what_is_no_question_is_refused():
    b = asked(started())
    refused(lambda: b.agent.consent("later"), ValueError, "now, tonight, no")
    refused(lambda: b.agent.consent("now", "attic"), ValueError, "no app is called attic")
    for number, fields in (("q3", {"app": "attic", "args": {}}), ("q4", {"app": ["main"]}), ("q5", {})):
        b.command("consent", number, **fields)
    assert said(b) == [("q3", None), ("q4", None), ("q5", None)]
    assert b.agent.consent("no")


def test_hello_says_that_a_person_is_asked():
    b = Bench()
    b.config["ask"] = True
    b.boot()
    b.run(lambda: b.agent.device.online)
    b.settle(1)
    assert b.broker.messages("hello")[-1]["asks"] is True
    assert started().broker.messages("hello")[-1]["asks"] is False
