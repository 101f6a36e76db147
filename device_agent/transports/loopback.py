"""A broker and its clients inside one process, with the faults of a bad network on demand.

Keeps what the agent relies on: retained messages, wills, exact topic filters answered in their order, one session a
client id, an acknowledgement for QoS 1. For tests, demonstrations and the simulator.
"""

import random
import threading
from collections import deque
from dataclasses import dataclass, field

from device_agent.core import ports

QUEUE_MESSAGES = 128
SEEN_MESSAGES = 10_000


@dataclass
class Faults:
    """How often (0 to 1) a delivery to a device goes wrong, for topics that begin with `prefix`."""

    seed: int = 0
    prefix: str = "fleet/v1/blobs/"
    drop: float = 0
    double: float = 0
    reorder: float = 0
    truncate: float = 0
    flip: float = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def deliver(self, inbox: "deque[tuple[str, bytes]]", topic: str, payload: bytes) -> None:
        """Put a message into the inbox as the bad network delivers it."""
        if not topic.startswith(self.prefix):
            inbox.append((topic, payload))
            return
        if self._happens(self.drop):
            return
        message = (topic, self._spoilt(payload))
        if inbox and self._happens(self.reorder):
            inbox.insert(self._random.randrange(len(inbox)), message)
        else:
            inbox.append(message)
        if self._happens(self.double):
            inbox.append(message)

    def _spoilt(self, payload: bytes) -> bytes:
        if payload and self._happens(self.truncate):
            return payload[: self._random.randrange(len(payload))]
        if payload and self._happens(self.flip):
            spoilt = bytearray(payload)
            spoilt[self._random.randrange(len(spoilt))] ^= 1 << self._random.randrange(8)
            return bytes(spoilt)
        return payload

    def _happens(self, share: float) -> bool:
        return share > 0 and self._random.random() < share


class Broker:
    """The broker: `publish` speaks as the server, `seen` holds what devices published, in order.

    `up = False` refuses new connections; `stop()` also cuts those that stand. `acknowledge = False` loses what devices
    publish, without a PUBACK.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.retained: dict[str, bytes] = {}
        self.seen: deque[tuple[str, bytes]] = deque(maxlen=SEEN_MESSAGES)
        self.up = True
        self.acknowledge = True
        self.lock = threading.RLock()
        self._clients: dict[str, LoopbackTransport] = {}

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish as the server; an empty retained payload withdraws what was retained."""
        with self.lock:
            if retain and payload:
                self.retained[topic] = payload
            elif retain:
                self.retained.pop(topic, None)
            for client in list(self._clients.values()):
                client.offer(topic, payload)

    def stop(self) -> None:
        """Go away: every connection breaks; the wills count once it is back."""
        with self.lock:
            self.up = False
            for client_id in list(self._clients):
                self.cut(client_id)

    def start(self) -> None:
        """Accept connections again."""
        self.up = True

    def cut(self, client_id: str) -> None:
        """Break one connection; its will is published."""
        with self.lock:
            client = self._clients.pop(client_id, None)
            if client is not None:
                client.broken("the connection was cut")
                self.receive(client.will[0], client.will[1], retain=True)

    # --- for transports --------------------------------------------------------------------------

    def join(self, client_id: str, client: "LoopbackTransport") -> None:
        """Accept a client; an older session of the same client id is thrown off. Raises OSError while down."""
        with self.lock:
            if not self.up:
                raise OSError("the broker is down")
            self.cut(client_id)
            self._clients[client_id] = client

    def leave(self, client_id: str, client: "LoopbackTransport") -> None:
        """A clean end: no will."""
        with self.lock:
            if self._clients.get(client_id) is client:
                del self._clients[client_id]

    def receive(self, topic: str, payload: bytes, retain: bool) -> None:
        """A message from a device."""
        with self.lock:
            self.seen.append((topic, payload))
            self.publish(topic, payload, retain)


class LoopbackTransport(ports.Transport):
    """One client of a Broker in the same process."""

    def __init__(self, broker: Broker, client_id: str) -> None:
        self.will: tuple[str, bytes] = ("", b"")
        self._broker = broker
        self._client_id = client_id
        self._connected = False
        self._reason: str | None = None
        self._filters: set[str] = set()
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._arrived = threading.Condition(broker.lock)
        self._token = 0
        self._acknowledged: deque[int] = deque(maxlen=QUEUE_MESSAGES)

    def connect(self, will_topic: str, will_payload: bytes, session: int) -> None:
        """Connect at once; raises OSError while the broker is down."""
        with self._broker.lock:
            self.disconnect(clean=False)
            self._filters.clear()
            self._inbox.clear()
            self._acknowledged.clear()
            self._broker.join(self._client_id, self)
            self.will = (will_topic, will_payload)
            self._connected, self._reason = True, None

    def connected(self) -> bool:
        """Whether the connection stands."""
        return self._connected

    def failure(self) -> str | None:
        """Why the last connection was lost."""
        return self._reason

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Hand a message to the broker, which acknowledges it at once."""
        with self._broker.lock:
            self._must_stand()
            self._token += 1
            if self._broker.acknowledge:
                self._broker.receive(topic, bytes(payload), retain)
                self._acknowledged.append(self._token)
            return self._token

    def acknowledged(self, token: int) -> bool:
        """Whether the broker took the message on this connection."""
        return token in self._acknowledged

    def subscribe(self, filters: list[tuple[str, int]]) -> None:
        """Subscribe to exact topics; retained messages come at once, in the order of the filters."""
        with self._broker.lock:
            self._must_stand()
            for topic, _ in filters:
                self._filters.add(topic)
                if topic in self._broker.retained:
                    self.offer(topic, self._broker.retained[topic])

    def unsubscribe(self, topics: list[str]) -> None:
        """End subscriptions."""
        with self._broker.lock:
            self._must_stand()
            self._filters.difference_update(topics)

    def receive(self) -> tuple[str, bytes] | None:
        """The next message, or None."""
        with self._broker.lock:
            return self._inbox.popleft() if self._inbox else None

    def wait(self, timeout_ms: int) -> None:
        """Sleep until a message is there or the time is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._inbox or not self._connected, max(timeout_ms, 0) / 1000)

    def disconnect(self, clean: bool) -> None:
        """Close; without `clean` the broker publishes the will."""
        if self._connected and clean:
            self._broker.leave(self._client_id, self)
        elif self._connected:
            self._broker.cut(self._client_id)
        self._connected = False

    # --- for the broker --------------------------------------------------------------------------

    def offer(self, topic: str, payload: bytes) -> None:
        """Deliver a message when this client subscribed to its topic; one that finds no room is lost."""
        with self._arrived:
            if topic in self._filters and len(self._inbox) < QUEUE_MESSAGES:
                self._broker.faults.deliver(self._inbox, topic, payload)
                self._arrived.notify_all()

    def broken(self, reason: str) -> None:
        """The connection is gone."""
        with self._arrived:
            self._connected, self._reason = False, reason
            self._arrived.notify_all()

    def _must_stand(self) -> None:
        if not self._connected:
            raise OSError(self._reason or "not connected to the broker")
