"""Whose mistake an input is that does not fit: the application's, or that of a model which takes other ones."""

from tests.device_agent.core.portable.bench import TRIAL, model
from tests.device_agent.core.portable.test_install import installed, refused, started


def test_what_an_application_gets_wrong_is_not_held_against_the_model_on_trial():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    for _ in range(9):
        refused(lambda: b.agent.predict("nonsense"), ValueError)
    b.work(20)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded"
    assert [m for m in b.broker.messages("report") if m["errors"]] == []


def test_a_model_that_takes_other_inputs_than_the_one_before_goes_back():
    b = started()
    for number, shape, delivery in ((1, [1], "first"), (2, [2], "second")):
        spec = {"task": "classification", "inputs": [{"name": "x", "dtype": "int8", "shape": shape}]}
        trial = TRIAL if number == 2 else None
        b.deliver(model(number), delivery, signature_spec=spec, trial=trial)
        b.run(lambda: b.serving() == number)
    for _ in range(3):
        refused(lambda: b.agent.predict("of the old shape"), ValueError)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "rolled_back" and b.serving() == 1
