"""Topics and messages come back as they were made; everything else is a ProtocolError, never another exception."""

import json

from device_agent.core import protocol

SHA = "ab" * 32


def refused(parse, *arguments) -> str:
    try:
        parse(*arguments)
    except protocol.ProtocolError as error:
        return str(error)
    raise AssertionError("accepted: " + repr(arguments)[:100])


def message(**fields) -> bytes:
    return protocol.encode(fields)


def report(**changes) -> bytes:
    fields = {"epoch": 1, "boot": 1, "sequence": 1, "start_ms": 0, "end_ms": 5, "n": 2, "errors": 0}
    fields.update({"app": "main", "artifact": SHA, "phase": "live", "labelled": 2, "correct": 1})
    fields.update(changes)
    return protocol.encode(fields)


def manifest(**changes) -> bytes:
    blob = {"sha256": SHA, "bytes": 10, "chunk_bytes": 4096, "index": SHA}
    transport = {"coding": "none"}
    transport.update(blob)
    fields = {
        "sequence": 1,
        "issued_at": 1,
        "expires_at": 2,
        "device": "pi-1",
        "app": "main",
        "delivery": "d",
    }
    fields.update({"target": "t", "model": "m", "version": 1, "self_test": blob, "transport": transport})
    fields.update(
        {"artifact": {"sha256": SHA, "bytes": 1, "format": "onnx"}, "signature_spec": {}, "trial": None}
    )
    fields.update(changes)
    return protocol.encode(fields)


def test_topics_come_back() -> None:
    for leaf in ("presence", "hello", "status", "report", "command"):
        assert protocol.parse_device_topic(protocol.device_topic("pi-1", leaf)) == ("pi-1", leaf, "")
    assert protocol.parse_device_topic(protocol.desired_topic("pi-1", "main")) == ("pi-1", "desired", "main")
    assert protocol.parse_chunk_topic(protocol.chunk_topic(SHA, 4096, 7)) == (SHA, 4096, 7)


def test_other_topics_are_refused() -> None:
    for topic in (
        "",
        "x",
        "fleet/v1/d/pi-1",
        "fleet/v1/d/pi 1/hello",
        "fleet/v2/d/pi-1/hello",
        "fleet/v1/d/a/b/c",
    ):
        assert "not a device topic" in refused(protocol.parse_device_topic, topic)
    for number in ("", "-1", "1.0", "\u00b2", "\u0661", "9" * 5000, "0x1"):
        assert "not a chunk" in refused(
            protocol.parse_chunk_topic, "fleet/v1/blobs/" + SHA + "/4096/" + number
        )
        assert "not a chunk" in refused(
            protocol.parse_chunk_topic, "fleet/v1/blobs/" + SHA + "/" + number + "/0"
        )
    assert "not a chunk" in refused(protocol.parse_chunk_topic, "fleet/v1/blobs/" + SHA.upper() + "/4096/0")


def test_what_is_no_message_of_this_version_is_refused() -> None:
    for payload in (b"", b"{", b"\xff", b"[]", b"1", b"null", b"{}", b'{"v":2}', b"[" * 3000):
        refused(protocol.decode, payload)
    assert protocol.decode(b'{"v":1,"more":2}')["more"] == 2


def test_counts_are_whole_numbers_that_a_database_holds() -> None:
    good = {"online": True, "epoch": 1, "session": 65536}
    assert protocol.parse_presence(protocol.encode(dict(good)))["session"] == 65536
    for bad in (-1, 1.5, True, None, "1", [], 1 << 53):
        fields = dict(good)
        fields["session"] = bad
        refused(protocol.parse_presence, protocol.encode(fields))


def test_reports_that_contradict_themselves_are_refused() -> None:
    protocol.parse_report(report())
    for changes in (
        {"n": -1}, {"end_ms": -1}, {"start_ms": 9}, {"correct": 3}, {"labelled": 1 << 60}, {"correct": "1"},
        {"artifact": "x"}, {"phase": "old"}, {"app": "a/b"}, {"app": None},
    ):  # fmt: skip
        refused(protocol.parse_report, report(**changes))
    assert "at most 4096 bytes" in refused(protocol.parse_report, report(note="x" * 4096))


def test_statuses_by_kind() -> None:
    protocol.parse_status(message(kind="delivery", app="main", delivery="d", state="trial"))
    protocol.parse_status(message(kind="missing", blob=SHA, chunk_bytes=4096, chunks=[1, 2]))
    protocol.parse_status(message(kind="answer", command="1", ok=True))
    for fields in (
        {"kind": "other"}, {"kind": "delivery", "app": "main", "delivery": "d", "state": "pending"},
        {"kind": "delivery", "app": "../x", "delivery": "d", "state": "trial"},
        {"kind": "missing", "blob": SHA, "chunk_bytes": 4096, "chunks": [-1]},
        {"kind": "missing", "blob": SHA, "chunk_bytes": 4096, "chunks": [1] * 65},
        {"kind": "missing", "blob": "x", "chunk_bytes": 4096, "chunks": []},
        {"kind": "answer", "command": "1", "ok": 1},
    ):  # fmt: skip
        refused(protocol.parse_status, message(**fields))


def test_a_sealed_manifest_opens_into_the_bytes_that_were_signed() -> None:
    body = manifest()
    payload = protocol.seal_manifest(bytes(64), bytes(8), body)
    assert protocol.open_manifest(payload) == (bytes(64), bytes(8), body)
    assert protocol.parse_manifest(body)["delivery"] == "d"
    refused(protocol.open_manifest, bytes(72))
    refused(protocol.open_manifest, bytes(2049))
    refused(protocol.seal_manifest, bytes(63), bytes(8), body)
    refused(protocol.seal_manifest, bytes(64), bytes(8), bytes(1977))


def test_manifests_with_a_bad_field_are_refused() -> None:
    blob = {"sha256": SHA, "bytes": 10, "chunk_bytes": 0, "index": SHA, "coding": "none"}
    for changes in (
        {"device": "a/b"}, {"sequence": -1}, {"sequence": 1.0}, {"artifact": {"sha256": SHA, "bytes": 1}},
        {"artifact": None}, {"transport": blob}, {"transport": {}}, {"self_test": None}, {"signature_spec": 1},
        {"trial": 5}, {"expires_at": None},
    ):  # fmt: skip
        refused(protocol.parse_manifest, manifest(**changes))
    fields = json.loads(manifest().decode())
    fields["transport"]["coding"] = "zip"
    refused(protocol.parse_manifest, json.dumps(fields).encode())
