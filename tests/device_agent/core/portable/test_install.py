"""From a signed offer to a model that serves: fetching, checking, self-test, trial, commit, roll-back."""

from device_agent.core import protocol
from device_agent.core.agent import NoModel
from tests.device_agent.core.portable import bench, failing_broker, failing_storage
from tests.device_agent.core.portable.bench import TRIAL, Bench, model


def started(apps=("main",)):
    b = Bench(apps)
    b.boot()
    b.run(lambda: b.broker.messages("hello"))
    return b


def installed(b, tag=1, delivery="first"):
    b.deliver(model(tag), delivery)
    b.run(lambda: b.ended(delivery))
    assert b.outcome() == "succeeded", b.lines
    return b


def refused(call, error, text=""):
    try:
        call()
    except error as problem:
        assert text in str(problem), problem
        return
    raise AssertionError("was not refused")


def test_a_first_model_is_installed_and_answers():
    b = started()
    refused(lambda: b.agent.predict([1]), NoModel, "no model installed yet")
    installed(b)
    b.settle(1)
    assert b.broker.states("first") == [
        "offered",
        "downloading",
        "downloading",
        "verifying",
        "testing",
        "succeeded",
    ]
    number, outputs = b.agent.predict([2])
    assert outputs == [[0, 0, 100, 0]]
    assert b.agent.label(number, "two") is True
    assert b.agent.label(number, "two") is False  # once is enough


def test_windows_are_exact_topics_ascending_and_asked_before_the_last_is_complete():
    b = started()
    installed(b, model(1)[2])
    b.broker.asked = []
    b.deliver(model(2, size=40 * failing_broker.CHUNK), "second")
    b.run(lambda: b.ended("second"))
    blob = failing_broker.digest(model(2, size=40 * failing_broker.CHUNK))
    asked = [[int(t.split("/")[-1]) for t in topics] for topics in b.broker.asked if blob in topics[0]]
    assert asked[0] == list(range(16))
    assert asked[1] == list(range(16, 24)) and asked[2] == list(range(24, 32))
    assert [chunk for window in asked for chunk in window] == list(range(40))
    assert not [t for t in b.transport.topics if "/blobs/" in t]  # nothing stays subscribed


def test_chunks_lost_doubled_late_flipped_short_or_withdrawn_cost_time_only():
    for fault in (
        failing_broker.DROP,
        failing_broker.DOUBLE,
        failing_broker.LATE,
        failing_broker.FLIP,
        failing_broker.CUT_SHORT,
        failing_broker.EMPTY,
    ):
        b = started()
        b.broker.faults = [failing_broker.KEEP, failing_broker.KEEP, fault, failing_broker.KEEP, fault, fault]
        installed(b)
        assert b.installed() == 1
        if fault != failing_broker.EMPTY:
            assert b.clock.ticks_ms() < 5000  # asked again as soon as the gap shows


def test_a_withdrawn_chunk_is_waited_for():
    b = started()
    b.broker.answers_missing = False
    fields = b.manifest(model(1), "first")
    topic = protocol.chunk_topic(fields["transport"]["sha256"], failing_broker.CHUNK, 2)
    chunk = b.broker.retained[topic]
    b.broker.retained[topic] = b""
    b.publish(fields)
    b.settle(20)
    assert b.agent.apps["main"].state["delivery"]["attempt"] == 1
    assert len(b.broker.states("first")) < 10  # waiting is not worth a message every time
    b.broker.retain(topic, chunk)
    b.run(lambda: b.ended("first"))
    assert b.installed() == 1


def test_a_chunk_that_stays_wrong_fails_the_delivery_and_leaves_the_old_model():
    b = installed(started())
    fields = b.manifest(model(2), "second")
    topic = protocol.chunk_topic(fields["transport"]["sha256"], failing_broker.CHUNK, 3)
    b.broker.store[topic] = b.broker.retained[topic] = b"x" * failing_broker.CHUNK
    b.publish(fields)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "failed" and "chunk 3" in b.agent.apps["main"].state["outcome"]["reason"]
    assert b.installed() == b.serving() == 1
    b.settle(1)
    assert b.broker.states("second")[-1] == "failed"


def test_chunks_that_do_not_come_are_named_and_arrive_when_published_again():
    b = started()
    fields = b.manifest(model(1), "first")
    sha256 = fields["transport"]["sha256"]
    gone = [protocol.chunk_topic(sha256, failing_broker.CHUNK, chunk) for chunk in (2, 3)]
    for topic in gone:
        b.broker.retained.pop(topic)
    b.publish(fields)
    b.run(lambda: b.ended("first"))
    missing = [m for m in b.broker.messages("status") if m["kind"] == "missing"]
    assert missing[0]["blob"] == sha256 and missing[0]["chunks"] == [2, 3]
    assert b.clock.ticks_ms() < 60000


def test_waiting_for_chunks_backs_off():
    b = started()
    b.broker.answers_missing = False
    fields = b.manifest(model(1), "first")
    for topic in list(b.broker.retained):
        b.broker.retained.pop(topic)
    b.publish(fields)
    b.settle(10)
    missing = [m for m in b.broker.messages("status") if m["kind"] == "missing"]
    assert 4 <= len(missing) <= 8  # 5, 10, 20, ... seconds apart, jittered


def test_a_coded_artifact_is_decoded_while_it_comes():
    b = started()
    data = model(1, size=1000)
    coded = bytes([1, 0xE8, 0x03, 0x17, 0xFC]) + data  # one stored block of raw deflate, 1000 bytes
    transport = b.broker.blob(coded)
    transport["coding"] = "deflate"
    b.deliver(data, "first", transport=transport)
    b.run(lambda: b.ended("first"))
    assert b.outcome() == "succeeded" and b.installed() == 1


def test_a_large_artifact_comes_by_ranges_and_is_checked_by_the_same_index():
    b = started()
    data = model(1, size=5000)
    fields = b.manifest(data, "first")
    fields["transport"]["url"] = "https://server/blob"
    b.transport.ranges["https://server/blob"] = data[:-1] + b"?"
    b.publish(fields)
    b.settle(1)
    assert b.installed() is None
    b.transport.ranges["https://server/blob"] = data
    b.run(lambda: b.ended("first"))
    assert b.installed() == 1
    asked = [topic for topics in b.broker.asked for topic in topics]
    assert not [t for t in asked if failing_broker.digest(data) in t]


def test_roll_back_to_the_artifact_in_the_idle_slot_fetches_nothing():
    b = installed(installed(started(), 1, "first"), 2, "second")
    b.broker.asked = []
    installed(b, 1, "back")
    assert b.installed() == b.serving() == 1
    assert b.broker.asked == []


def test_an_artifact_that_is_installed_already_succeeds_at_once():
    b = installed(started())
    b.deliver(model(1), "again")
    b.run(lambda: b.ended("again"))
    assert b.agent.apps["main"].state["outcome"]["reason"] == "already installed"


def test_a_model_that_answers_otherwise_than_on_the_server_is_not_used():
    b = installed(started())
    b.deliver(model(2, shift=1), "second", self_test=b.broker.blob(bench.self_test(0)))
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "failed" and "self-test" in b.agent.apps["main"].state["outcome"]["reason"]
    assert b.installed() == b.serving() == 1


def test_a_first_model_that_cannot_be_loaded_leaves_the_device_empty_and_says_so():
    b = started()
    b.deliver(model(1, fault=bench.UNLOADABLE), "first")
    b.run(lambda: b.ended("first"))
    b.settle(1)
    assert b.installed() is None and b.broker.states("first")[-1] == "failed"
    b.command("hello", "c1")
    b.settle(1)
    assert b.broker.messages("hello")[-1]["apps"]["main"]["installed"] is None
    refused(lambda: b.agent.predict([1]), NoModel)


def test_a_good_trial_is_committed_without_network():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    assert b.installed() == 1  # it serves, but is not committed
    b.broker.up = False
    b.work(20)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded" and b.installed() == 2
    b.broker.up = True
    b.run(lambda: b.broker.states("second")[-1] == "succeeded")
    last = b.broker.messages("status")[-1]
    assert last["evidence"]["enough"] is True and last["evidence"]["labelled"] >= 5


def test_wrong_answers_bring_the_old_model_back():
    b = installed(started())
    b.deliver(model(2, shift=1), "second", trial=dict(TRIAL, min_labelled=400))
    b.run(lambda: b.serving() == 2)
    b.work(8, shift=0)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "rolled_back" and b.installed() == b.serving() == 1
    assert "labelled answers were wrong" in b.agent.apps["main"].state["outcome"]["reason"]


def test_labels_of_answers_the_old_model_gave_do_not_count():
    b = installed(started())
    old = [b.agent.predict([0])[0] for _ in range(20)]
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    assert [b.agent.label(number, 3) for number in old] == [False] * 20
    b.work(20)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded"


def test_errors_and_missed_deadlines_end_a_trial():
    for fault, rules, words in (
        (bench.CRASHING, TRIAL, "3 errors"),
        (bench.SLOW, dict(TRIAL, deadline_us=1000), "longer than 1000 us"),
    ):
        b = installed(started())
        b.deliver(model(2, fault=fault), "second", trial=rules)
        b.run(lambda: b.serving() == 2)
        for _ in range(3):
            if fault == bench.CRASHING:
                refused(lambda: b.agent.predict([0]), ValueError)
            else:
                b.agent.predict([0])
        b.run(lambda: b.ended("second"))
        assert b.outcome() == "rolled_back" and b.serving() == 1
        assert words in b.agent.apps["main"].state["outcome"]["reason"]


def test_without_evidence_a_trial_ends_with_the_self_test():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded" and b.installed() == 2
    assert b.agent.apps["main"].state["outcome"]["reason"].startswith("installed, no evidence")
    b.settle(1)
    ends = [m for m in b.broker.messages("status") if m.get("delivery") == "second"]
    assert ends[-1]["evidence"]["enough"] is False


def test_a_model_that_fails_its_self_test_at_the_end_of_the_trial_goes():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    b.storage.files["main.b.selftest"] = bench.self_test(1)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "rolled_back" and b.serving() == 1


def test_a_slot_being_overwritten_is_not_called_proven():
    b = installed(installed(started(), 1, "first"), 2, "second")
    b.deliver(model(3), "third")
    while not b.ended("third"):
        b.steps(1)
        assert b.honest()
    assert b.installed() == 3


def test_restarts_in_a_row_during_a_trial_are_a_crash_loop():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    for _ in range(3):
        b.boot()
        b.steps(50)
        assert b.serving() == 2
    b.boot()
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "rolled_back" and "crash loop" in b.agent.apps["main"].state["outcome"]["reason"]
    b.run(lambda: b.serving() == 1)


def test_a_model_that_kills_the_agent_when_loaded_is_given_up():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.agent.apps["main"].state["delivery"])
    deaths = 0
    for _ in range(100):
        try:
            b.kills = 0 if b.serving() is None else 1
            b.steps(1)
            if b.ended("second"):
                break
        except failing_storage.PowerCut:
            deaths += 1
            b.boot()
    assert deaths == 4 and b.outcome() == "failed"
    assert "crash loop" in b.agent.apps["main"].state["outcome"]["reason"]
    b.kills = 0
    b.run(lambda: b.serving() == 1)


def test_deaths_during_the_self_test_do_not_count_against_the_trial():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.agent.apps["main"].state["delivery"])
    b.kills = 1
    try:
        b.run(lambda: b.serving() == 2)
    except failing_storage.PowerCut:
        b.boot()
    b.run(lambda: b.serving() == 2)
    assert b.agent.apps["main"].state["delivery"]["boots"] == 0


def test_a_model_that_was_rolled_back_never_serves_again():
    b = installed(started())
    b.deliver(model(2, shift=1), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    b.work(8, shift=0)
    b.run(lambda: b.ended("second"))
    active = b.agent.apps["main"].state["active"]
    b.storage.files["main." + active + ".model"] = b"rot"
    b.boot()
    b.settle(1)
    assert b.serving() is None


def test_a_trial_survives_a_restart_with_its_counts():
    b = installed(started())
    b.deliver(model(2), "second", trial=dict(TRIAL, min_inferences=30))
    b.run(lambda: b.serving() == 2)
    b.work(20)
    b.agent.close()
    b.boot()
    b.run(lambda: b.serving() == 2)
    b.work(10)
    b.run(lambda: b.ended("second"))
    assert b.outcome() == "succeeded"


def test_a_newer_manifest_takes_over_from_a_trial():
    b = installed(started())
    b.deliver(model(2), "second", trial=TRIAL)
    b.run(lambda: b.serving() == 2)
    b.deliver(model(3), "third")
    b.steps(30)
    assert b.serving() in (1, 3)
    b.run(lambda: b.ended("third"))
    assert b.installed() == 3


def test_two_apps_have_models_of_their_own():
    b = started(("main", "side"))
    b.deliver(model(1), "first")
    b.deliver(model(2, shift=1), "second", app="side", self_test=b.broker.blob(bench.self_test(1)))
    b.run(lambda: b.ended("first") and b.ended("second", "side"))
    assert b.agent.predict([0])[1] == [[100, 0, 0, 0]]
    assert b.agent.predict([0], "side")[1] == [[0, 100, 0, 0]]
    refused(lambda: b.agent.predict([0], "attic"), ValueError, "attic")


def test_a_full_disk_fails_the_attempt_not_the_agent():
    b = installed(started())
    b.deliver(model(2), "second")
    b.steps(4)
    b.storage.full = True
    b.settle(2)
    assert b.serving() == 1
    b.storage.full = False
    b.run(lambda: b.ended("second"))
    assert b.serving() in (1, 2) and b.serving() == b.installed()
