"""Spool, ring, state record, sequential test, window and answers, each on its own."""

from device_agent.core import answers, protocol
from device_agent.core.metrics import MAX_BUCKETS, Window, top_classes
from device_agent.core.record import Record
from device_agent.core.ring import Ring
from device_agent.core.spool import Spool
from device_agent.core.trial import PASS, RUNNING, STOP, EProcess, Trial
from tests.device_agent.core.portable.failing_storage import BenchStorage


def drained(spool):
    found = []
    entry = spool.next()
    while entry is not None:
        found.append(entry[:2])
        spool.acknowledge(entry[2])
        entry = spool.next()
    return found


def test_a_spool_gives_back_in_order_what_was_put_in():
    storage = BenchStorage()
    spool = Spool(storage, 4096)
    messages = [("status", b"message %d" % i) for i in range(10)]
    for leaf, payload in messages[:5]:
        spool.put(leaf, payload)
    spool = Spool(storage, 4096)
    for leaf, payload in messages[5:]:
        spool.put(leaf, payload)
    assert drained(spool) == messages and spool.waiting() == 0


def test_a_spool_ignores_a_torn_end_and_goes_on_behind_it():
    storage = BenchStorage()
    spool = Spool(storage, 4096)
    spool.put("status", b"one")
    spool.put("status", b"two")
    for name in ("spool.0", "spool.1"):
        if name in storage.files:
            storage.files[name] = storage.files[name][:-2]
    spool = Spool(storage, 4096)
    spool.put("status", b"three")
    assert drained(Spool(storage, 4096)) == [("status", b"one"), ("status", b"three")]


def test_a_spool_is_emptied_when_all_is_acknowledged():
    storage = BenchStorage()
    spool = Spool(storage, 32768)
    for _ in range(20):
        spool.put("report", b"x" * 1000)
    assert len(drained(spool)) == 20
    assert storage.size("spool.0") + storage.size("spool.1") < 4096 + 8
    spool.tidy()
    assert drained(Spool(storage, 32768)) == []


def test_the_state_record_survives_the_loss_of_either_file():
    for lost in ("state.0", "state.1"):
        storage = BenchStorage()
        record = Record(storage, lambda count: b"\x01" * count)
        for boot in range(1, 6):
            record.fields["boot"] = boot
            record.save()
        storage.files[lost] = storage.files[lost][:-1]
        found = Record(storage, lambda count: b"\x02" * count).fields
        assert found["boot"] in (4, 5) and found["epoch"] == 0x01010101


def test_a_ring_joins_the_last_predictions_only():
    ring = Ring(4)
    ids = [ring.put(7 << 32, (i,)) for i in range(6)]
    assert [ring.take(number) for number in ids] == [None, None, (2,), (3,), (4,), (5,)]
    assert [ring.take(odd) for odd in (ids[5], ids[5] + 4, "x", None, True, -1)] == [None] * 6


def trial_of(**rules):
    rules.setdefault("accuracy_floor", 0.954)
    return Trial(rules, 0)


def test_only_wrong_answers_stop_a_trial_after_three_labels():
    trial = trial_of(min_labelled=400)
    seen = 0
    while trial.verdict(0)[0] == RUNNING:
        trial.observe(False)
        seen += 1
    assert (seen, trial.verdict(0)[0]) == (3, STOP)


def test_answers_as_good_as_on_the_server_pass():
    trial = trial_of(min_inferences=0, min_labelled=400)
    for i in range(400):
        assert trial.verdict(0)[0] == RUNNING
        trial.observe(i % 33 != 0)  # 97 % right
    assert trial.verdict(0)[0] == PASS


def test_a_high_peak_counts_even_when_right_answers_follow():
    process = EProcess(0.05)
    for _ in range(4):
        process.observe(True)
    peak = process.value()
    for _ in range(200):
        process.observe(False)
    assert process.value() < peak == process.peak


def test_a_trial_counts_the_same_after_a_restart():
    trial = trial_of(max_errors=5)
    for i in range(30):
        trial.ran(100)
        trial.observe(i % 9 != 0)
    again = trial_of(max_errors=5)
    again.restore(trial.snapshot(5000), 100)
    assert again.evidence(False) == trial.evidence(False) and again.started_ms == 100 - 5000


def test_odd_rules_are_refused():
    for rules in ({"alpha": 0}, {"accuracy_floor": 2}, {"max_errors": "no"}, {"min_inferences": True}):
        try:
            Trial(rules, 0)
        except protocol.ProtocolError:
            continue
        raise AssertionError(rules)


def test_a_report_stays_below_4_kib_and_is_well_formed():
    window = Window("a" * 64, "0" * 64, "a", "trial", 1 << 40)
    value = 1
    for _ in range(2000):
        if window.full():
            break
        window.ran(value, 1 << 30)
        window.latency.counts[max(window.latency.counts)] = 0x7FFFFFFF
        value += 1 + value // 20
    for i in range(100):
        window.answered("%032d" % i, i / 100)
        window.judged(i % 2 == 0)
    window.n = window.errors = window.labelled = 1 << 40
    identity = {"epoch": 1 << 32, "boot": 1 << 32, "sequence": 1 << 32, "utc": 1 << 32}
    payload = window.report(1 << 41, identity, 1 << 32)
    assert len(window.latency.counts) == MAX_BUCKETS and len(payload) <= protocol.REPORT_MAX_BYTES
    report = protocol.parse_report(payload)
    assert len(report["classes"]) == 17 and sum(report["classes"].values()) == 100
    assert sum(report["confidence"]) == 100


def test_the_most_frequent_classes_are_named():
    counts = {str(i): i + 1 for i in range(20)}
    top = top_classes(counts)
    assert top["19"] == 20 and top["other"] == 1 + 2 + 3 + 4 and "0" not in top


def near(a, b):
    return abs(a - b) < 1e-6


def test_classes_and_confidence_of_probabilities_logits_and_one_score():
    assert answers.top_class([0.1, 0.7, 0.2]) == (1, 0.7)
    best, confidence = answers.top_class([0.0, 2.0])
    assert best == 1 and near(confidence, 0.8807970)
    best, confidence = answers.top_class([-5000.0, 5000.0])
    assert best == 1 and near(confidence, 1.0)
    assert answers.top_class([0.25]) == (0, 0.75) and answers.top_class([0.75]) == (1, 0.75)
    for broken in ([], [float("nan"), 1.0]):
        try:
            answers.top_class(broken)
        except ValueError:
            continue
        raise AssertionError(broken)


def test_labels_by_number_and_name():
    names = ["cat", "dog"]
    assert answers.true_class(1, names, 2) == answers.true_class("dog", names, 2) == 1
    for odd in ("cow", 2, -1, 0.5):
        try:
            answers.true_class(odd, names, 2)
        except ValueError:
            continue
        raise AssertionError(odd)


def test_errors_of_numbers():
    assert answers.errors(3.0, [1.0]) == (2.0, 4.0)
    assert answers.errors([1, [2, 3]], [1.0, 0.0, 0.0]) == (5 / 3, 13 / 3)
