"""A device on the bench: clock, broker with faults, storage that loses power, and models one can read.

Imports only device_agent.core, so that the same scenarios run on CPython and in the MicroPython VM.
"""

import hashlib
import io
import json

from device_agent.core import ports, protocol, selftest
from device_agent.core.agent import Agent
from tests.device_agent.core.portable.failing_broker import CHUNK, BenchTransport, Broker, digest
from tests.device_agent.core.portable.failing_storage import BenchStorage, PowerCut
from tests.device_agent.core.portable.signing import Key

CLASSES = 4
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
        if self.bench.in_pieces:
            raise MemoryError()
        if self.bench.hungry:
            self.bench.hungry -= 1
            raise MemoryError()
        if self.bench.kills:
            self.bench.kills -= 1
            raise PowerCut()
        data = self.bench.storage.read(path.split("/")[-1])
        if data[2] == self.bench.too_large:
            raise MemoryError()
        if data[0] == UNLOADABLE:
            raise ValueError("no such operator")
        self.data = data

    def unload(self):
        self.data = None

    def run(self, x):
        if self.data is None:
            raise ValueError("nothing is loaded")
        if not isinstance(x, list):
            raise ports.InputError("x is no list")
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


# --- the bench -----------------------------------------------------------------------------------


class Bench:
    """One device with its broker and a server that signs."""

    def __init__(self, apps=("main",)):
        self.clock = BenchClock()
        self.broker = Broker()
        self.storage = BenchStorage()
        self.transport = BenchTransport(self.broker)
        self.crashing = True
        self.hungry = 0  # how many loads from now on find no heap
        self.in_pieces = False  # whether no load finds heap before the next start
        self.can_restart = True
        self.due = False
        self.too_large = None  # tag of a model for which there is never any
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
        self.transport.up = self.due = self.in_pieces = False
        self.storage.starved = 0
        self.agent = Agent(
            self.config,
            self.clock,
            self.transport,
            BenchRuntime(self),
            self.storage,
            log=self.lines.append,
            restart=self._restarted if self.can_restart else None,
            entropy=self._random,
        )

    def _restarted(self):
        self.restarts += 1
        self.due = True

    def _random(self, count):
        self.entropy += 1
        return hashlib.sha256(bytes([self.entropy & 255])).digest()[:count]

    def steps(self, count):
        """A number of steps; time passes when the agent says that it waits."""
        for _ in range(count):
            wait = self.agent.step(self.clock.ticks_ms())
            self.clock.us += wait * 1000
            if self.due:
                self.boot()

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
