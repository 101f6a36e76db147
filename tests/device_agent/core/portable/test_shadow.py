"""A model in the shadow: it runs on the inputs of the one that answers, is compared with it, and never answers."""

from tests.device_agent.core.portable import bench
from tests.device_agent.core.portable.bench import TRIAL, model
from tests.device_agent.core.portable.test_install import installed, refused, started

SHADOW = dict(TRIAL)
SHADOW["shadow"] = True


def shadowed(b, data, **rules):
    trial = dict(SHADOW)
    trial.update(rules)
    b.deliver(data, "second", trial=trial)
    b.run(lambda: b.agent.apps["main"].delivery.shadow is not None)
    return b


def asked(b, count, right=lambda i: i):
    """Requests with their labels, with time between them for the replay."""
    for i in range(count):
        number, outputs = b.agent.predict([i % bench.CLASSES])
        assert outputs == [bench.answer(i % bench.CLASSES, 0)]  # what the old model says
        if i % 2:
            b.steps(8)
        assert b.agent.label(number, right(i % bench.CLASSES))
        b.steps(8)


def last_status(b, state):
    return [m for m in b.broker.messages("status") if m.get("delivery") == "second" and m["state"] == state][
        -1
    ]


def test_a_good_shadow_is_compared_and_leaves_what_is_installed():
    b = shadowed(installed(started()), model(2))
    asked(b, 12)
    b.run(lambda: b.ended("second"))
    b.settle(1)
    end = last_status(b, "succeeded")
    assert end["shadow"] is True and "in the shadow" in end["reason"]
    evidence = end["evidence"]
    assert evidence["compared"] == evidence["agreed"] == evidence["n"] >= 10
    assert evidence["labelled"] == evidence["correct"] == evidence["old_correct"] >= 5
    assert evidence["old_us"] == evidence["new_us"] == 700 and evidence["enough"] is True
    assert b.installed() == b.serving() == 1
    assert b.agent.apps["main"].facts()["installed"]["delivery"] == "first"
    assert {m["phase"] for m in b.broker.messages("report") if m["artifact"] == end["artifact"]} == {"shadow"}
    b.boot()
    b.run(lambda: b.serving() == 1)


def test_a_shadow_that_errs_where_the_old_model_is_right_is_stopped():
    b = shadowed(installed(started()), model(2, shift=1))
    for _ in range(30):
        if not b.ended("second"):
            asked(b, 1)
    b.run(lambda: b.ended("second"))
    b.settle(1)
    evidence = last_status(b, "rolled_back")["evidence"]
    assert evidence["agreed"] == evidence["correct"] == 0
    assert evidence["old_correct"] == evidence["labelled"] > 0
    assert b.installed() == b.serving() == 1


def test_a_shadow_that_crashes_or_cannot_take_an_input_harms_no_answer():
    b = shadowed(installed(started()), model(2, fault=bench.CRASHING), max_errors=1)
    asked(b, 2)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "rolled_back" and "2 errors" in b.agent.apps["main"].state["outcome"]["reason"]
    assert b.serving() == 1


def test_a_shadow_goes_on_after_a_restart_with_its_counts():
    b = shadowed(installed(started()), model(2), min_inferences=30)
    asked(b, 20)
    b.agent.close()
    b.boot()
    b.run(lambda: b.agent.apps["main"].delivery.shadow is not None)
    assert b.serving() == 1
    asked(b, 10)
    b.run(lambda: b.ended("second"))
    b.settle(1)
    assert last_status(b, "succeeded")["evidence"]["compared"] == 30


def test_a_shadow_that_kills_the_agent_is_given_up():
    b = shadowed(installed(started()), model(2))
    for _ in range(3):
        b.boot()
        b.run(lambda: b.agent.apps["main"].delivery.shadow is not None)
    b.boot()
    b.run(lambda: b.ended("second"))
    assert "crash loop" in b.agent.apps["main"].state["outcome"]["reason"]
    b.run(lambda: b.serving() == 1)


def test_an_input_that_the_application_overwrites_is_replayed_as_it_was():
    b = shadowed(installed(started()), model(2))
    x = [0]
    for i in range(40):
        x[0] = i % bench.CLASSES
        b.agent.predict(x)
        x[0] = (i + 1) % bench.CLASSES
        if i % 10 == 9:
            b.steps(100)
    counts = b.agent.apps["main"].delivery.shadow
    # Eight of ten fit the buffer; the others are passed over.
    assert counts.compared == counts.agreed == 32


def test_a_shadow_needs_a_model_to_run_beside():
    b = started()
    b.deliver(model(2), "second", trial=SHADOW)
    b.settle(1)
    assert last_status(b, "rejected")["code"] == "shadow"
    refused(lambda: b.agent.predict([1]), Exception, "no model installed yet")


def test_a_shadow_signed_again_after_its_end_is_not_repeated():
    b = shadowed(installed(started()), model(2))
    asked(b, 12)
    b.run(lambda: b.ended("second"))
    b.deliver(model(2), "second", trial=SHADOW)
    b.settle(2)
    assert b.agent.apps["main"].delivery.shadow is None and b.installed() == 1


def test_the_old_model_signed_again_ends_a_shadow():
    b = shadowed(installed(started()), model(2))
    b.deliver(model(1), "third")
    b.run(lambda: b.ended("third"))
    assert b.agent.apps["main"].delivery.shadow is None and b.serving() == b.installed() == 1
