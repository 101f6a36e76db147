"""A power cut at any write leaves a device that boots into a proven model and finishes its delivery."""

from device_agent.core.agent import NoModel
from tests.device_agent.core.portable import bench, cuts, failing_broker, failing_storage


def test_a_fixed_sample_of_cuts_during_install_trial_commit_and_roll_back():
    assert cuts.cuts(every=15, offset=3) > 30


def test_every_cut_during_spooling():
    assert cuts.spool_cuts() > 60


def test_a_cut_during_the_very_first_install_leaves_nothing_half_done():
    for number in range(1, 60, 4):
        b = bench.Bench()
        b.storage.cut_at = number
        b.storage.mode = failing_storage.HALF
        try:
            b.boot()
            b.deliver(bench.model(1), "first")
            b.run(lambda: b.ended("first"))
        except failing_storage.PowerCut:
            b.boot()
            if not b.broker.retained:
                b.deliver(bench.model(1), "first")
        b.run(lambda: b.ended("first") and b.serving() == 1)
        assert b.installed() == 1, (number, b.lines)


def test_a_download_goes_on_after_a_cut_where_it_was():
    b = bench.Bench()
    b.boot()
    data = bench.model(1, size=12 * failing_broker.CHUNK)
    fields = b.manifest(data, "first")
    sha256 = fields["transport"]["sha256"]
    last = [topic for topic in b.broker.retained if sha256 + "/256/1" in topic][-2:]
    held = {topic: b.broker.retained.pop(topic) for topic in last}
    b.broker.answers_missing = False
    b.publish(fields)
    b.run(lambda: b.storage.size("main.a.model") >= 9 * failing_broker.CHUNK)
    b.storage.files["main.a.model"] = b.storage.files["main.a.model"][: 8 * failing_broker.CHUNK + 5]  # torn
    b.broker.retained.update(held)
    b.broker.asked = []
    b.boot()
    b.run(lambda: b.ended("first"))
    asked = [topic for topics in b.broker.asked for topic in topics if sha256 in topic]
    assert min(int(topic.split("/")[-1]) for topic in asked) == 8
    assert b.installed() == 1


def test_the_application_is_told_while_there_is_nothing_to_answer_with():
    b = bench.Bench()
    b.boot()
    try:
        b.agent.predict([1])
    except NoModel as error:
        assert str(error) == "no model installed yet"
    else:
        raise AssertionError("answered without a model")
