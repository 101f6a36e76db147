"""A broker with retained messages and a gateway behind it, and faults for the chunks on their way down."""

import hashlib

from device_agent.core import ports, protocol

CHUNK = 256
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
        self.starved = False  # whether nothing finds the heap to end a subscription
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
        if self.starved:
            raise MemoryError()
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
