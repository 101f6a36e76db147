"""Which manifests are followed: everything is checked before a byte is fetched."""

import json

from device_agent.core import protocol
from tests.device_agent.core.portable.bench import KEY, Bench, model
from tests.device_agent.core.portable.failing_broker import CHUNK
from tests.device_agent.core.portable.signing import Key
from tests.device_agent.core.portable.test_install import installed, started

OTHER = Key(9)


def rejection(b):
    """What the device said last about a manifest it refuses, having asked for nothing."""
    b.settle(1)
    last = b.broker.messages("status")[-1]
    assert last["state"] == "rejected", last
    assert b.agent.apps["main"].state["delivery"] is None
    return last


def test_what_is_not_for_this_device_or_does_not_fit_is_rejected_before_a_byte_is_fetched():
    data = model(1)
    for code, changes in (
        ("device", {"device": "d-2"}),
        ("target", {"target": "other"}),
        ("format", {"artifact": {"sha256": "0" * 64, "bytes": len(data), "format": "onnx"}}),
        ("size", {"artifact": {"sha256": "0" * 64, "bytes": 2000000, "format": "plan"}}),
        ("trial", {"trial": {"alpha": 7}}),
        ("keys", {"keys": [{"id": "x", "key": "y"}]}),
        ("manifest", {"signature_spec": {"blob": 3}}),
    ):
        b = started()
        fields = b.manifest(data, "first")
        fields.update(changes)
        if code in ("format", "size"):
            fields["transport"].update({"coding": "deflate"})
        payload = b.publish(fields)
        b.broker.retain(protocol.desired_topic("d-1", "main"), payload)
        b.broker.asked = []
        assert rejection(b)["code"] == code
        assert b.broker.asked == []


def test_chunks_larger_than_the_device_takes_are_rejected():
    b = started()
    fields = b.manifest(model(1), "first")
    fields["self_test"]["chunk_bytes"] = 2 * CHUNK
    b.publish(fields)
    assert "chunks of 512 bytes" in rejection(b)["reason"]


def test_signatures_by_other_keys_and_changed_bytes_are_rejected():
    b = started()
    b.publish(b.manifest(model(1), "first"), OTHER)
    last = rejection(b)
    assert last["code"] == "signature" and last["delivery"] == "first"
    payload = b.publish(b.manifest(model(1), "second"))
    changed = payload.replace(b'"digits"', b'"digitS"')
    b.broker.retain(protocol.desired_topic("d-1", "main"), changed)
    b.settle(1)
    assert b.broker.states("second")[-1] in ("rejected", "succeeded")
    b = started()
    b.broker.retain(protocol.desired_topic("d-1", "main"), changed)
    assert rejection(b)["code"] == "signature"


def test_garbage_is_ignored():
    b = started()
    topic = protocol.desired_topic("d-1", "main")
    for payload in (b"", b"x", b"y" * 5000, KEY.sign(b"[]") + KEY.id + b"[]", b"[" * 1500):
        b.broker.retain(topic, payload)
        b.settle(1)
    b.transport.deliver(protocol.device_topic("d-1", "command"), b"[" * 4000)
    b.settle(1)
    installed(b)


def test_sequences_only_rise():
    b = installed(installed(started(), 1, "first"), 2, "second")
    old = b.manifest(model(1), "replayed", sequence=1)
    b.publish(old)
    last = rejection(b)
    assert last["code"] == "sequence" and "lower than 2" in last["reason"]
    other = b.manifest(model(1), "forged", sequence=2)
    b.publish(other)
    assert "other content" in rejection(b)["reason"]
    hello = b.broker.messages("hello")[-1]  # tells a server that lost its memory where to go on
    assert hello["apps"]["main"]["sequence"] == 2
    b.sequence = 2
    installed(b, 1, "replayed")  # the same delivery, signed again with a new sequence


def test_the_same_manifest_again_changes_nothing():
    b = installed(started())
    b.settle(1)
    before = len(b.broker.sent)
    payload = b.broker.retained[protocol.desired_topic("d-1", "main")]
    for _ in range(3):
        b.broker.retain(protocol.desired_topic("d-1", "main"), payload)
    b.steps(50)
    assert not [t for t, _ in b.broker.sent[before:] if t.endswith("status")]


def test_an_expired_manifest_is_waited_out():
    b = started()
    b.clock.seconds = 3000
    fields = b.manifest(model(1), "first")
    hellos = len(b.broker.messages("hello"))
    b.publish(fields)
    b.settle(2)
    assert b.broker.states("first") == [] and b.agent.apps["main"].state["sequence"] == 0
    assert len(b.broker.messages("hello")) == hellos + 1  # asks the server to sign again, once
    fields.update({"expires_at": 4000, "sequence": 2})
    b.publish(fields)
    b.run(lambda: b.ended("first"))
    assert b.installed() == 1


def test_without_a_trusted_clock_expiry_is_not_judged():
    b = started()
    b.deliver(model(1), "first", expires_at=1)
    b.run(lambda: b.ended("first"))
    assert b.installed() == 1
    assert b.broker.messages("hello")[-1]["clock"] is False


def test_a_delivery_signed_again_goes_on():
    b = started()
    b.broker.answers_missing = False
    fields = b.manifest(model(1), "first")
    lost = [t for t in b.broker.retained if fields["transport"]["sha256"] in t][2:]
    held = {topic: b.broker.retained.pop(topic) for topic in lost}
    b.publish(fields)
    b.settle(1)
    fields["sequence"] = 2
    b.publish(fields)
    b.steps(50)
    for topic in held:
        b.broker.retain(topic, held[topic])
    b.run(lambda: b.ended("first"))
    assert b.agent.apps["main"].state["sequence"] == 2
    assert b.broker.states("first").count("offered") == 1
    fields["sequence"] = 3  # after the end: nothing is done again
    b.settle(1)
    before = len(b.broker.states("first"))
    b.publish(fields)
    b.settle(1)
    assert b.agent.apps["main"].state["sequence"] == 3 and len(b.broker.states("first")) == before


def test_keys_rotate_by_a_signed_manifest():
    b = started()
    b.deliver(model(1), "first", keys=[OTHER.entry()])
    b.run(lambda: b.ended("first"))
    b.boot()
    b.publish(b.manifest(model(2), "second"))
    assert rejection(b)["code"] == "signature"
    b.publish(b.manifest(model(2), "third"), OTHER)
    b.run(lambda: b.ended("third"))
    assert b.installed() == 2
    assert b.broker.messages("hello")[-1]["keys"] == [OTHER.entry()["id"]]


def test_a_spec_too_long_for_the_manifest_comes_as_a_blob():
    b = started()
    spec = json.dumps(
        {"task": "classification", "classes": ["class number %d" % i for i in range(200)]}
    ).encode()
    b.deliver(model(1), "first", signature_spec={"blob": b.broker.blob(spec)})
    b.run(lambda: b.ended("first"))
    number, _ = b.agent.predict([3])
    assert b.agent.label(number, "class number 3") is True


def test_a_state_folder_that_was_deleted_is_filled_again():
    b = installed(started())
    epoch = b.broker.messages("hello")[-1]["epoch"]
    b.storage.files.clear()
    b.storage.durable.clear()
    b.boot()
    b.run(lambda: b.installed() == 1)
    assert b.broker.messages("hello")[-1]["epoch"] != epoch


def test_a_model_file_that_rots_is_noticed_at_boot_and_fetched_again():
    b = installed(started())
    slot = b.agent.apps["main"].state["active"]
    name = "main." + slot + ".model"
    b.storage.files[name] = b.storage.files[name][:-5] + b"rot!!"
    b.boot()
    b.steps(20)
    b.run(lambda: b.agent.apps["main"].installed() is not None)
    assert b.installed() == b.serving() == 1


def test_after_rot_the_model_before_serves_meanwhile():
    b = installed(installed(started(), 1, "first"), 2, "second")
    name = "main." + b.agent.apps["main"].state["active"] + ".model"
    b.storage.files[name] = b"rot"
    b.broker.up = False
    b.boot()
    b.steps(20)
    assert b.serving() == 1
    b.broker.up = True
    b.run(lambda: b.installed() == 2)


def test_a_manifest_for_an_app_the_device_does_not_have_is_ignored():
    b = Bench()
    b.boot()
    b.deliver(model(1), "first", app="attic")
    b.settle(1)
    assert b.broker.states("first") == []
