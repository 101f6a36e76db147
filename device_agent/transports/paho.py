"""MQTT by paho-mqtt: one client a connection, its network thread feeding a bounded queue."""

import logging
import socket
import sys
import threading
from collections import deque
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from device_agent import web
from device_agent.core import ports

CONNECT_TIMEOUT_S = 10
FLUSH_S = 3
QUEUE_MESSAGES = 128
QUEUE_BYTES = 8 << 20
MAX_UNSENT = 256

log = logging.getLogger(__name__)


class Inbox:
    """Received messages in order, bounded in number and bytes."""

    def __init__(self) -> None:
        self._messages: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, topic: str, payload: bytes, qos: int) -> bool:
        """Keep a message; False when there is no room for one that must not be lost.

        A chunk (QoS 0) that finds no room is dropped: the agent asks for it again.
        """
        with self._lock:
            full = len(self._messages) >= QUEUE_MESSAGES or self._bytes + len(payload) > QUEUE_BYTES
            if not full:
                self._messages.append((topic, payload))
                self._bytes += len(payload)
            elif qos == 0:
                self.dropped += 1
            return not full or qos == 0

    def take(self) -> tuple[str, bytes] | None:
        """The oldest message, or None."""
        with self._lock:
            if not self._messages:
                return None
            topic, payload = self._messages.popleft()
            self._bytes -= len(payload)
            return topic, payload


class Connection:
    """One MQTT connection from CONNECT to its end; never connects a second time."""

    def __init__(
        self, settings: dict[str, Any], will: tuple[str, bytes], traffic: threading.Condition
    ) -> None:
        self.inbox = Inbox()
        self._reason: str | None = None
        self.traffic = traffic
        self.stirred = False
        self._accepted = False
        self._given_up = False
        broker = settings["broker"]
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings["client_id"],
            clean_session=True,
            protocol=mqtt.MQTTv311,
            # Every CONNECT carries a new session number in its will, so the agent decides when to try again.
            reconnect_on_failure=False,
        )
        self._client.username_pw_set(settings["username"], settings["password"])
        self._client.will_set(will[0], will[1], qos=1, retain=True)
        self._client.max_queued_messages_set(MAX_UNSENT)
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        if broker["tls"]:
            self._client.tls_set_context(web.trust(broker["ca"]))
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.connect_async(broker["host"], broker["port"], keepalive=settings["keepalive_s"])
        self._client.loop_start()
        # paho forgets its thread when it ends; an exception on a malformed packet ends it without a callback.
        self._thread = self._client._thread

    def connected(self) -> bool:
        """Whether the broker accepted and the connection stands."""
        return self._accepted and self.failure() is None

    def failure(self) -> str | None:
        """Why the connection failed or ended; None while it is made or stands."""
        if self._reason is None and (self._thread is None or not self._thread.is_alive()):
            return "the connection broke on something that is no MQTT"
        return self._reason

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> mqtt.MQTTMessageInfo:
        """Send one message; raises OSError when that is impossible."""
        self._must_stand()
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            raise OSError(mqtt.error_string(info.rc))
        return info

    def subscribe(self, filters: list[tuple[str, int]]) -> None:
        """One SUBSCRIBE packet; raises OSError."""
        self._must_stand()
        code, _ = self._client.subscribe(filters)
        if code != mqtt.MQTT_ERR_SUCCESS:
            raise OSError(mqtt.error_string(code))

    def unsubscribe(self, topics: list[str]) -> None:
        """One UNSUBSCRIBE packet; raises OSError."""
        self._must_stand()
        code, _ = self._client.unsubscribe(topics)
        if code != mqtt.MQTT_ERR_SUCCESS:
            raise OSError(mqtt.error_string(code))

    def end(self, clean: bool) -> None:
        """Close; without `clean` the broker sees a lost connection and publishes the will."""
        self._given_up = True
        if clean and self._accepted:
            self._client.disconnect()
            if self._thread is not None:
                self._thread.join(FLUSH_S)
            return
        self._cut()

    def _cut(self) -> None:
        open_socket = self._client.socket()
        if not isinstance(open_socket, socket.socket):
            # Not connected yet: this only tells the thread to stop trying.
            self._client.disconnect()
            return
        try:
            # The thread finds a closed connection, and no DISCONNECT was sent.
            open_socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("closing a broken connection: %s", error)

    def _must_stand(self) -> None:
        if not self.connected():
            raise OSError(self.failure() or "not connected to the broker")

    def _stir(self) -> None:
        with self.traffic:
            self.stirred = True
            self.traffic.notify_all()

    def _fail(self, reason: str) -> None:
        # The first reason is the cause, the others follow from it.
        self._reason = self._reason or reason
        self._stir()

    # --- in paho's thread ------------------------------------------------------------------------

    def _on_connect(
        self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        if code.is_failure:
            self._fail(f"the broker refused this device: {code}")
        elif self._given_up:
            self._cut()
        else:
            self._accepted = True
            self._stir()

    def _on_connect_fail(self, client: mqtt.Client, data: Any) -> None:
        # paho calls this while it handles the exception, and hands on nothing of it.
        error = sys.exc_info()[1]
        self._fail(f"{type(error).__name__}: {error}" if error else "the broker cannot be reached")
        client.disconnect()

    def _on_disconnect(
        self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        self._fail(f"the connection ended: {code}")

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("a message with an unreadable topic is ignored")
            return
        if not self.inbox.put(topic, bytes(message.payload), message.qos):
            # What must not be lost comes again after a new connection: it is retained, or asked for by `hello`.
            self._fail("more messages than the agent could take")
            self._cut()
        self._stir()

    def _on_publish(
        self, client: mqtt.Client, data: Any, mid: int, code: ReasonCode, properties: Any
    ) -> None:
        self._stir()


class PahoTransport(ports.Transport):
    """The agent's way to the broker of its provisioning file."""

    def __init__(self, config: dict[str, Any], keepalive_s: int = 30) -> None:
        names = ("broker", "client_id", "username", "password")
        self._settings = {**{name: config[name] for name in names}, "keepalive_s": keepalive_s}
        self._traffic = threading.Condition()
        self._connection: Connection | None = None
        self._token = 0
        self._sent: dict[int, mqtt.MQTTMessageInfo] = {}
        self._first_token = 1

    def connect(self, will_topic: str, will_payload: bytes, session: int) -> None:
        """Begin to connect and return at once; `connected` and `failure` tell how it went."""
        self.disconnect(clean=False)
        self._sent.clear()
        self._first_token = self._token + 1
        try:
            self._connection = Connection(self._settings, (will_topic, will_payload), self._traffic)
        except ValueError as error:
            raise OSError(f"the broker's address is unusable: {error}") from error

    def connected(self) -> bool:
        """Whether the broker has accepted the connection and it still stands."""
        return self._connection is not None and self._connection.connected()

    def failure(self) -> str | None:
        """Why the last connection was refused or lost."""
        return self._connection.failure() if self._connection else None

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Hand one message to the network thread; the token is good for `acknowledged`."""
        info = self._standing().publish(topic, payload, qos, retain)
        self._token += 1
        if qos:
            self._forget_acknowledged()
            self._sent[self._token] = info
        return self._token

    def acknowledged(self, token: int) -> bool:
        """Whether the PUBACK came on this connection."""
        if not self._first_token <= token <= self._token:
            return False
        info = self._sent.get(token)
        return info is None or info.is_published()

    def subscribe(self, filters: list[tuple[str, int]]) -> None:
        """One SUBSCRIBE packet for all filters, in their order."""
        self._standing().subscribe(filters)

    def unsubscribe(self, topics: list[str]) -> None:
        """One UNSUBSCRIBE packet for all topics."""
        self._standing().unsubscribe(topics)

    def receive(self) -> tuple[str, bytes] | None:
        """The next message, or None."""
        return self._connection.inbox.take() if self._connection else None

    def wait(self, timeout_ms: int) -> None:
        """Sleep until something happened on the connection since the last wait, or the time is over."""
        with self._traffic:
            connection = self._connection
            if not (connection and (connection.stirred or len(connection.inbox))):
                self._traffic.wait(max(timeout_ms, 0) / 1000)
            if connection:
                connection.stirred = False

    def disconnect(self, clean: bool) -> None:
        """Close; a clean end first sends what was published."""
        if self._connection is not None:
            self._connection.end(clean)
            self._connection = None

    def fetch_range(self, url: str, start: int, end: int) -> bytes:
        """Bytes start..end-1 of `url` over HTTP(S)."""
        return web.fetch_range(url, start, end, self._settings["broker"]["ca"])

    def _standing(self) -> Connection:
        if self._connection is None:
            raise OSError("not connected to the broker")
        return self._connection

    def _forget_acknowledged(self) -> None:
        done = [token for token, info in self._sent.items() if info.is_published()]
        for token in done:
            del self._sent[token]
