"""The gateway's connection to the broker: a persistent session whose messages are acknowledged by hand, after commit.

An acknowledgement belongs to the connection that brought the message: on the next one the broker may have given its packet
id to another message, which would then be lost. So every arrival carries the number of its connection.
"""

import logging
import queue
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import paho.mqtt.client as mqtt
from django.conf import settings
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device_agent.core import protocol
from fleet.gateway import dynsec
from fleet.inventory.credentials import Credentials, gateway_credentials

KEEPALIVE_S = 20
# Below half of the broker's window, so that a batch never waits for messages the broker holds back.
QUEUE_MAX = 2000
INFLIGHT = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """One message from the broker, to be acknowledged on the connection that brought it."""

    topic: str
    payload: bytes
    retained: bool
    mid: int
    qos: int
    connection: int


@dataclass(frozen=True)
class Settings:
    """Where the broker is, who we are, and whether it shares subscriptions (`MQTT_URL?shared=true`)."""

    host: str
    port: int
    tls: bool
    ca_file: str
    credentials: Credentials
    shared: bool

    @classmethod
    def of_environment(cls, instance: int = 0) -> "Settings":
        """From Django's settings; user and password in MQTT_URL replace the derived ones."""
        url = urlsplit(settings.MQTT_URL)
        mine = gateway_credentials(instance)
        if url.username:
            mine = Credentials(unquote(url.username), unquote(url.password or ""), mine.client_id)
        shared = dict(parse_qsl(url.query)).get("shared", "").lower() in ("1", "true", "yes")
        return cls(
            settings.MQTT_HOST, settings.MQTT_PORT, settings.MQTT_TLS, settings.MQTT_CA_FILE, mine, shared
        )

    @property
    def share(self) -> str:
        """Prefix of subscriptions of which each message goes to one gateway only."""
        return "$share/gateway/" if self.shared else ""


class Broker:
    """paho's client, with a queue of arrivals and publishing that waits for the broker's word."""

    def __init__(self, wanted: Settings) -> None:
        self.settings = wanted
        self.arrivals: queue.Queue[Arrival] = queue.Queue(QUEUE_MAX)
        self.wake = threading.Event()
        self._lock = threading.Lock()
        self._connection = 0
        self._connected = False
        self._forgotten = False
        self._answers: queue.Queue[bytes] = queue.Queue(1000)
        self._client = self._make_client()

    # --- the life of the connection --------------------------------------------------------------

    def start(self) -> None:
        """Connect in the background, and again for ever when the connection is lost."""
        self._client.connect_async(self.settings.host, self.settings.port, KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect; the session and what waits in it stay at the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self) -> None:
        """Ask for everything the gateway reads; harmless when it has it already."""
        self._client.subscribe(self._filters())

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and the connection stands."""
        return self._connected

    def take_forgotten(self) -> bool:
        """Whether the broker had forgotten our session since the last call: what it held may be lost as well."""
        with self._lock:
            forgotten, self._forgotten = self._forgotten, False
        return forgotten

    def remember_forgotten(self) -> None:
        """Take the answer of `take_forgotten` back, because what follows from it could not be done."""
        with self._lock:
            self._forgotten = True

    # --- messages --------------------------------------------------------------------------------

    def acknowledge(self, arrivals: Sequence[Arrival]) -> int:
        """Acknowledge what is stored; arrivals of an earlier connection come again and are not."""
        done = 0
        for arrival in arrivals:
            # Under the lock no new connection can begin between the comparison and the packet.
            with self._lock:
                if arrival.qos and arrival.connection == self._connection:
                    self._client.ack(arrival.mid, arrival.qos)
                    done += 1
        return done

    def publish(self, messages: Sequence[tuple[str, bytes, bool]], timeout_s: float = 10.0) -> bool:
        """Publish (topic, payload, retain) with QoS 1; whether the broker acknowledged every one in time."""
        deadline = time.monotonic() + timeout_s
        sent = []
        for topic, payload, retain in messages:
            if not self._connected:
                return False
            sent.append(self._client.publish(topic, payload, qos=1, retain=retain))
            if len(sent) >= INFLIGHT and not _await(sent, deadline):
                return False
        return _await(sent, deadline) and self._connected

    def control(self, commands: list[dynsec.Command], timeout_s: float = 10.0) -> list[str] | None:
        """Send commands to Mosquitto's plugin; what it refused, or None when it did not answer."""
        while not self._answers.empty():
            self._answers.get_nowait()
        if not self.publish([(dynsec.CONTROL, dynsec.payload(commands), False)], timeout_s):
            return None
        try:
            return dynsec.failures(self._answers.get(timeout=timeout_s))
        except queue.Empty:
            return None

    # --- paho's thread ---------------------------------------------------------------------------

    def _make_client(self) -> mqtt.Client:
        mine = self.settings.credentials
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=mine.client_id, clean_session=False, manual_ack=True
        )
        client.username_pw_set(mine.username, mine.password)
        client.max_inflight_messages_set(INFLIGHT)
        client.reconnect_delay_set(1, 15)
        if self.settings.tls:
            client.tls_set_context(ssl.create_default_context(cafile=self.settings.ca_file or None))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        return client

    def _filters(self) -> list[tuple[str, int]]:
        share, root = self.settings.share, f"{protocol.ROOT}/d/+"
        # Every gateway hears every presence: whichever is up can tell who is there.
        wanted = [
            (f"{root}/presence", 1),
            *((f"{share}{root}/{leaf}", 1) for leaf in ("hello", "status", "report")),
        ]
        if settings.BROKER_GRANTS == "dynsec":
            wanted.insert(0, (dynsec.RESPONSE, 0))
        return wanted

    def _on_connect(
        self,
        client: mqtt.Client,
        data: Any,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        more: Properties | None,
    ) -> None:
        if reason.is_failure:
            logger.error("the broker refused the gateway: %s; trying again", reason)
            return
        with self._lock:
            self._connection += 1
            self._connected = True
            self._forgotten = self._forgotten or not flags.session_present
        logger.info("connected to the broker, session %s", "found" if flags.session_present else "new")
        self.subscribe()
        self.wake.set()

    def _on_disconnect(
        self,
        client: mqtt.Client,
        data: Any,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        more: Properties | None,
    ) -> None:
        with self._lock:
            self._connection += 1
            self._connected = False
        if reason.is_failure:
            logger.warning("the connection to the broker is lost: %s", reason)

    def _on_subscribe(
        self, client: mqtt.Client, data: Any, mid: int, reasons: list[ReasonCode], more: Properties | None
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            logger.error("the broker refused a subscription of the gateway; check the rights of its user")

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == dynsec.RESPONSE:
            self._answer(bytes(message.payload))
            return
        arrival = Arrival(
            message.topic, bytes(message.payload), message.retain, message.mid, message.qos, self._connection
        )
        try:
            self.arrivals.put_nowait(arrival)
        except queue.Full:
            # Not acknowledged, so the broker sends it again.
            logger.warning("messages arrive faster than the database takes them")

    def _answer(self, payload: bytes) -> None:
        try:
            self._answers.put_nowait(payload)
        except queue.Full:
            logger.warning("an answer of the security plugin was not waited for")


def _await(sent: list[mqtt.MQTTMessageInfo], deadline: float) -> bool:
    """Whether all are acknowledged before the deadline; empties the list."""
    try:
        for info in sent:
            info.wait_for_publish(max(0.0, deadline - time.monotonic()))
        return all(info.is_published() for info in sent)
    except (RuntimeError, ValueError):
        return False
    finally:
        sent.clear()
