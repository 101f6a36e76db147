"""A device on the bench: clock, broker with faults, storage that loses power, and models one can read.

Imports only device_agent.core, so that the same scenarios run on CPython and in the MicroPython VM.
"""

import hashlib
import io
import json

from device_agent.core import ed25519, ports, protocol, selftest
from device_agent.core.agent import Agent

CHUNK = 256
CLASSES = 4
_P = (1 << 255) - 19
_L = (1 << 252) + 27742317777372353535851937790883648493

# --- signing (the device only verifies) ----------------------------------------------------------


def _compressed(scalar):
    base = ed25519._decoded(bytes([0x58]) + b"\x66" * 31)
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = ed25519._add(total, base)
        base = ed25519._double(base)
        scalar >>= 1
    inverse = pow(total[2], _P - 2, _P)
    x, y = total[0] * inverse % _P, total[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


class Key:
    """An Ed25519 key pair made from one byte (RFC 8032)."""

    def __init__(self, seed):
        digest = ed25519.sha512(bytes([seed]) * 32)
        self.scalar = (int.from_bytes(digest[:32], "little") & ((1 << 254) - 8)) | (1 << 254)
        self.prefix = digest[32:]
        self.public = _compressed(self.scalar)
        self.id = bytes([seed]) * 8
        self.made = {}

    def sign(self, body):
        if body not in self.made:
            r = int.from_bytes(ed25519.sha512(self.prefix + body), "little") % _L
            point = _compressed(r)
            k = int.from_bytes(ed25519.sha512(point + self.public + body), "little") % _L
            self.made[body] = point + ((r + k * self.scalar) % _L).to_bytes(32, "little")
        return self.made[body]

    def entry(self):
        return {"id": protocol.hex_digest(self.id), "key": protocol.hex_digest(self.public)}


KEY = Key(7)

# --- models: the first byte is what is wrong with them, the second a shift of all answers ---------

GOOD, UNLOADABLE, CRASHING, SLOW = 0, 1, 2, 3


def model(tag, fault=GOOD, shift=0, size=1500):
    head = bytes([fault, shift, tag])
    return head + bytes([(tag * 31 + i * 7) & 255 for i in range(size - 3)])


def answer(kind, shift):
    scores = [0] * CLASSES
    scores[(kind + shift) % CLASSES] = 100
    return scores


def self_test(shift=0):
    """The self-test of a model with that shift."""
    file = io.BytesIO()
    samples = [([bytes([kind])], [bytes(answer(kind, shift))]) for kind in range(CLASSES)]
    spec_in, spec_out = [{"dtype": "int8", "shape": [1]}], [{"dtype": "int8", "shape": [CLASSES]}]
    selftest.write(file, spec_in, spec_out, {"mode": "equal", "value": 0}, samples, True)
    return file.getvalue()


class BenchRuntime(ports.Runtime):
    """Runs the models above."""

    name = "bench"
    format = "plan"

    def __init__(self, bench):
        self.bench = bench
        self.data = None

    def fresh(self):
        return BenchRuntime(self.bench)

    def load(self, path, signature):
        if self.bench.kills:
            self.bench.kills -= 1
            raise PowerCut()
        data = self.bench.storage.read(path.split("/")[-1])
        if data[0] == UNLOADABLE:
            raise ValueError("no such operator")
        self.data = data

    def unload(self):
        self.data = None

    def run(self, x):
        if self.data is None:
            raise ValueError("nothing is loaded")
        if self.data[0] == CRASHING and self.bench.crashing:
            raise ValueError("division by zero")
        self.bench.clock.us += 900000 if self.data[0] == SLOW and self.bench.crashing else 700
        return [answer(x[0], self.data[1])]

    def run_raw(self, inputs):
        return [bytes(answer(inputs[0][0], self.data[1]))]


class BenchClock(ports.Clock):
    """Time that passes only when told to."""

    def __init__(self):
        self.us = 0
        self.seconds = None

    def ticks_ms(self):
        return self.us // 1000

    def ticks_us(self):
        return self.us

    def utc(self):
        return self.seconds


# --- storage -------------------------------------------------------------------------------------


class PowerCut(BaseException):
    """The power is gone; nothing may catch this but the test."""


LOST, HALF, KEPT = 0, 1, 2  # what becomes of writes that were not synced, and of the one under way


class BenchStorage(ports.Storage):
    """Files in memory; dies at the `cut_at`-th write, flush, rename or removal, or is full from there on."""

    def __init__(self):
        self.files = {}
        self.durable = {}
        self.operations = 0
        self.cut_at = 0
        self.mode = LOST
        self.full = False

    def _operation(self):
        self.operations += 1
        return self.operations == self.cut_at

    def power_cut(self):
        if self.mode == LOST:
            self.files = dict(self.durable)
        self.durable = dict(self.files)
        self.cut_at = 0
        raise PowerCut()

    def _write(self, name, before, data, after):
        if self.full:
            self.files[name] = before + data[: len(data) // 2]
            raise OSError(28)
        if self._operation():
            if self.mode != LOST:
                keep = data if self.mode == KEPT else data[: len(data) // 2]
                self.files[name] = before + keep + after[len(keep) :]
            self.power_cut()
        self.files[name] = before + data + after[len(data) :]

    def append(self, name, data):
        self._write(name, self.files.get(name, b""), bytes(data), b"")

    def write_at(self, name, offset, data):
        whole = self.files.get(name, b"")
        assert offset <= len(whole)
        self._write(name, whole[:offset], bytes(data), whole[offset:])

    def sync(self, name):
        if name not in self.files:
            raise OSError(2)
        if self._operation():
            self.power_cut()
        self.durable[name] = self.files[name]

    def write_atomic(self, name, data):
        self._write(name + ".new", b"", data, b"")
        self.sync(name + ".new")
        if self._operation():
            if self.mode == KEPT:
                self._rename(name)
            self.power_cut()
        self._rename(name)

    def _rename(self, name):
        self.files[name] = self.durable[name] = self.files.pop(name + ".new")
        self.durable.pop(name + ".new", None)

    def remove(self, name):
        if name in self.files:
            if self._operation():
                self.power_cut()
            self.files.pop(name)
            self.durable.pop(name, None)

    def read(self, name):
        return self.files.get(name)

    def size(self, name):
        return len(self.files.get(name, b""))

    def exists(self, name):
        return name in self.files

    def open_read(self, name):
        if name not in self.files:
            raise OSError(2)
        return io.BytesIO(self.files[name])

    def path(self, name):
        return name

    def free_bytes(self):
        return 1000000


# --- broker --------------------------------------------------------------------------------------

KEEP, DROP, DOUBLE, FLIP, CUT_SHORT, LATE, EMPTY = 0, 1, 2, 3, 4, 5, 6


class Broker:
    """Retained messages, what the devices sent, and faults for the chunks on their way down."""

    def __init__(self):
        self.retained = {}
        self.store = {}  # every chunk ever published: what the gateway publishes again
        self.faults = []
        self.sent = []
        self.up = True
        self.refuses = None
        self.answers_missing = True
        self.acknowledges = True
        self.asked = []
        self.link = None

    def retain(self, topic, payload):
        self.retained[topic] = payload
        if topic.startswith(protocol.ROOT + "/blobs/"):
            self.store[topic] = payload
        if self.link is not None:
            self.link.deliver(topic, payload)

    def blob(self, data):
        """Publish a blob with its index; returns the manifest's description of it."""
        index = b""
        for at in range(0, len(data), CHUNK):
            index += hashlib.sha256(data[at : at + CHUNK]).digest()
        for blob in (index, data):
            sha256 = digest(blob)
            for at in range(0, len(blob), CHUNK):
                self.retain(protocol.chunk_topic(sha256, CHUNK, at // CHUNK), blob[at : at + CHUNK])
        return {"sha256": digest(data), "bytes": len(data), "chunk_bytes": CHUNK, "index": digest(index)}

    def take(self, topic, payload):
        """A message of a device arrived; the gateway answers `missing`."""
        self.sent.append((topic, payload))
        leaf = protocol.parse_device_topic(topic)[1]
        message = getattr(protocol, "parse_" + leaf)(payload)
        if leaf == "status" and message["kind"] == "missing" and self.answers_missing:
            for chunk in message["chunks"]:
                again = protocol.chunk_topic(message["blob"], message["chunk_bytes"], chunk)
                if again in self.store:
                    self.retain(again, self.store[again])

    def messages(self, leaf):
        """What was sent to one leaf, decoded."""
        return [protocol.decode(payload) for topic, payload in self.sent if topic.endswith("/" + leaf)]

    def states(self, delivery):
        """The delivery states a device reported."""
        found = [m for m in self.messages("status") if m["kind"] == "delivery" and m["delivery"] == delivery]
        return [m["state"] for m in found]


def digest(data):
    return protocol.hex_digest(hashlib.sha256(data).digest())


class BenchTransport(ports.Transport):
    """One connection to the broker above."""

    def __init__(self, broker):
        self.broker = broker
        self.up = False
        self.queue = []
        self.late = []
        self.topics = {}
        self.token = 0
        self.ranges = {}

    def connect(self, will_topic, will_payload, session):
        if not self.broker.up:
            raise OSError("connection refused")
        self.queue, self.late, self.topics = [], [], {}
        self.up = self.broker.refuses is None
        self.broker.link = self if self.up else None
        self.will = (will_topic, will_payload)

    def connected(self):
        return self.up and self.broker.up and self.broker.link is self

    def failure(self):
        return self.broker.refuses

    def publish(self, topic, payload, qos, retain=False):
        if not self.connected():
            raise OSError("not connected")
        self.token += 1
        self.broker.take(topic, payload)
        return self.token

    def acknowledged(self, token):
        return self.broker.acknowledges

    def subscribe(self, filters):
        if not self.connected():
            raise OSError("not connected")
        self.broker.asked.append([topic for topic, _ in filters])
        for topic, _ in filters:
            self.topics[topic] = True
        for topic, _ in filters:
            if topic in self.broker.retained:
                self.deliver(topic, self.broker.retained[topic])

    def unsubscribe(self, topics):
        for topic in topics:
            self.topics.pop(topic, None)

    def deliver(self, topic, payload):
        if topic not in self.topics:
            return
        chunk = topic.startswith(protocol.ROOT + "/blobs/")
        fault = self.broker.faults.pop(0) if chunk and self.broker.faults else KEEP
        if fault == LATE:
            self.late.append((topic, payload))
            return
        if fault == FLIP:
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        elif fault == CUT_SHORT:
            payload = payload[:-1]
        elif fault == EMPTY:
            payload = b""
        self.queue += [(topic, payload)] * (0 if fault == DROP else 2 if fault == DOUBLE else 1)
        self.queue += self.late
        self.late = []

    def receive(self):
        return self.queue.pop(0) if self.queue else None

    def disconnect(self, clean):
        self.up = False

    def fetch_range(self, url, start, end):
        if url not in self.ranges:
            raise OSError("404")
        return self.ranges[url][start:end]


# --- the bench -----------------------------------------------------------------------------------


class Bench:
    """One device with its broker and a server that signs."""

    def __init__(self, apps=("main",)):
        self.clock = BenchClock()
        self.broker = Broker()
        self.storage = BenchStorage()
        self.transport = BenchTransport(self.broker)
        self.crashing = True
        self.kills = 0  # how many loads from now on end the process
        self.sequence = 0
        self.lines = []
        self.restarts = 0
        self.entropy = 1
        self.config = {
            "device": "d-1",
            "target": "bench",
            "runtime": "bench",
            "apps": list(apps),
            "chunk_bytes": CHUNK,
            "spool_bytes": 16384,
            "keys": [KEY.entry()],
        }
        self.agent = None

    def boot(self):
        """Start the agent on what the storage holds."""
        self.agent = None
        self.transport.up = False
        self.agent = Agent(
            self.config,
            self.clock,
            self.transport,
            BenchRuntime(self),
            self.storage,
            log=self.lines.append,
            restart=self._restarted,
            entropy=self._random,
        )

    def _restarted(self):
        self.restarts += 1

    def _random(self, count):
        self.entropy += 1
        return hashlib.sha256(bytes([self.entropy & 255])).digest()[:count]

    def steps(self, count):
        """A number of steps; time passes when the agent says that it waits."""
        for _ in range(count):
            wait = self.agent.step(self.clock.ticks_ms())
            self.clock.us += wait * 1000

    def run(self, until, minutes=60):
        """Step until `until()`; fails when that takes too long on the device's clock."""
        end = self.clock.ticks_ms() + minutes * 60000
        while not until():
            assert self.clock.ticks_ms() < end, self.lines[-6:]
            self.steps(1)

    def settle(self, minutes=5):
        """Let that time pass."""
        end = self.clock.ticks_ms() + minutes * 60000
        while self.clock.ticks_ms() < end:
            self.steps(1)

    def manifest(self, data, delivery, **changes):
        """Publish the blobs of `data` and return the fields of a manifest for it."""
        self.sequence += 1
        fields = {
            "sequence": self.sequence,
            "issued_at": 1000,
            "expires_at": 2000,
            "device": "d-1",
            "app": "main",
            "delivery": delivery,
            "target": "bench",
            "model": "digits",
            "version": self.sequence,
            "artifact": {"sha256": digest(data), "bytes": len(data), "format": "plan"},
            "transport": self.broker.blob(data),
            "self_test": self.broker.blob(self_test(data[1])),
            "signature_spec": {"task": "classification", "classes": ["zero", "one", "two", "three"]},
            "trial": None,
            "keys": [],
        }
        fields["transport"]["coding"] = "none"
        for name in changes:
            fields[name] = changes[name]
        return fields

    def publish(self, fields, key=KEY):
        """Sign a manifest and retain it."""
        fields["v"] = protocol.VERSION
        body = json.dumps(fields).encode()
        payload = protocol.seal_manifest(key.sign(body), key.id, body)
        self.broker.retain(protocol.desired_topic("d-1", fields["app"]), payload)
        return payload

    def deliver(self, data, delivery, **changes):
        """Publish a signed manifest for a model."""
        return self.publish(self.manifest(data, delivery, **changes))

    def command(self, name, number, **fields):
        """Send a command."""
        fields.update({"id": number, "name": name})
        topic = protocol.device_topic("d-1", "command")
        self.transport.deliver(topic, protocol.encode(fields))

    def ended(self, delivery, app="main"):
        """Whether that delivery is over."""
        outcome = self.agent.apps[app].state["outcome"]
        return outcome is not None and outcome["delivery"] == delivery

    def outcome(self, app="main"):
        return self.agent.apps[app].state["outcome"]["state"]

    def installed(self, app="main"):
        """The tag of the model that is committed, or None."""
        held = self.agent.apps[app].installed()
        if held is None:
            return None
        data = self.storage.files[app + "." + self.agent.apps[app].state["active"] + ".model"]
        assert digest(data) == held["artifact"]
        return data[2]

    def honest(self):
        """Whether every slot the record calls proven holds what the record says."""
        return all(
            digest(self.storage.files.get(app + "." + slot + ".model", b"")) == held["artifact"]
            for app in self.agent.apps
            for slot, held in self.agent.apps[app].state["slots"].items()
        )

    def serving(self, app="main"):
        """The tag of the model that answers, or None."""
        serving = self.agent.apps[app].serving
        return None if serving is None else serving.runtime.data[2]

    def work(self, count, shift=0, labelled=True):
        """Requests of the application, with their true labels, which a model of that shift answers rightly."""
        for i in range(count):
            number, _ = self.agent.predict([i % CLASSES])
            if labelled:
                assert self.agent.label(number, (i + shift) % CLASSES)


TRIAL = {"min_inferences": 10, "max_seconds": 600, "max_errors": 2, "min_labelled": 5, "accuracy_floor": 0.9}
