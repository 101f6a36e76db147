"""MQTT 3.1.1 for boards: one packet in memory at a time, buffers made once, no thread.

What the agent has not taken yet stays in the network's own buffers, so a fast broker is slowed down by TCP instead of
filling a board's heap. The payload `receive` hands out lies in the buffer and is good until the next `receive`.
Runs on CPython, too, where PahoTransport is the better choice.
"""
# mypy: disable-error-code="type-arg"

import select
import ssl
import time

from device_agent.core import ports
from device_agent.transports.packets import READ_ONLY, WRITE_ONLY, Closed, Reader, Writer

TYPE_CHECKING = False  # MicroPython has no `typing`
if TYPE_CHECKING:
    import socket

CONNECT_S = 10
WRITE_MS = 10000
FAREWELL_MS = 1000
TOPIC_BYTES = 256
OUT_BYTES = 1024
MAX_UNACKNOWLEDGED = 64
# Packets that are no message are answered a few at a time, so that a flood of them keeps nobody waiting.
MAX_PACKETS = 32

CONNECT, CONNACK, PUBLISH, PUBACK = 0x10, 0x20, 0x30, 0x40
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 0x82, 0xA2, 0xC0, 0xE0

REFUSALS = (
    "it speaks another MQTT",
    "it does not take this client id",
    "it is not available",
    "wrong user name or password",
    "not authorised",
)

# How the stream says "not now": None from MicroPython, one of these from CPython's TLS.
_WOULD_BLOCK: tuple = tuple(
    getattr(ssl, name) for name in ("SSLWantReadError", "SSLWantWriteError") if hasattr(ssl, name)
)


class UmqttTransport(ports.Transport):
    """The agent's way to the broker of its provisioning file."""

    def __init__(self, config: dict, clock: ports.Clock, keepalive_s: int = 30) -> None:
        self._config = config
        self._clock = clock
        self._keepalive_ms = 1000 * keepalive_s
        self._reader = Reader(config.get("chunk_bytes", 4096) + TOPIC_BYTES, _WOULD_BLOCK)
        self._writer = Writer(OUT_BYTES, _WOULD_BLOCK, self._await_room)
        self._socket: "socket.socket | None" = None
        self._stream = None
        self._poll = select.poll()
        self._accepted = False
        self._handed_out = False
        self._reason: "str | None" = None
        self._token = 0
        self._first_token = 1
        self._waiting: list = []  # tokens of QoS 1 messages without PUBACK
        self._sent_ms = self._heard_ms = 0
        self._pinged = False
        self.dropped = 0

    # --- the connection --------------------------------------------------------------------------

    def connect(self, will_topic: str, will_payload: bytes, session: int) -> None:
        """Open the connection and send CONNECT; raises OSError. Waits for the network, not for the broker's answer."""
        self.disconnect(False)
        self._reason = None
        self._first_token = self._token + 1
        self._waiting = []
        self._pinged = self._handed_out = False
        self._reader.begin()
        try:
            self._open(self._config["broker"])
            self._say_connect(will_topic.encode(), will_payload)
        except OSError:
            self._drop()
            raise
        except MemoryError:
            self._drop()
            raise OSError("the heap has no room for a connection")

    def _open(self, broker: dict) -> None:
        from device_agent.transports.utls import dialled

        made = self._socket = dialled(broker, CONNECT_S)
        made.setblocking(False)
        # A MicroPython socket is a stream itself.
        self._stream = made if hasattr(made, "readinto") else made.makefile("rwb", buffering=0)
        self._poll = select.poll()
        self._poll.register(made, READ_ONLY)
        self._heard_ms = self._clock.ticks_ms()

    def _say_connect(self, will_topic: bytes, will_payload: bytes) -> None:
        texts = [self._config["client_id"].encode(), will_topic, will_payload]
        texts += [self._config["username"].encode(), self._config["password"].encode()]
        writer = self._begin(CONNECT, 10 + sum(2 + len(text) for text in texts))
        # MQTT 3.1.1; user name, password, retained will of QoS 1, clean session.
        writer.put(b"\x00\x04MQTT\x04\xee")
        writer.number(self._keepalive_ms // 1000)
        for text in texts:
            writer.text(text)
        self._end_packet()

    def connected(self) -> bool:
        """Whether the broker has accepted the connection and it still stands."""
        if not self._accepted and self._stream is not None and not self._handed_out:
            self._packet()  # nothing but the CONNACK can come before it
        return self._accepted and self._stream is not None

    def failure(self) -> "str | None":
        """Why the last connection was refused or lost."""
        return self._reason

    def disconnect(self, clean: bool) -> None:
        """Close; after a clean end the broker does not publish the will."""
        if clean and self._accepted and self._stream is not None:
            try:
                self._begin(DISCONNECT, 0)
                self._end_packet()
                self._await_end()
            except OSError:
                pass  # gone already: the broker publishes the will, which is true
        self._drop()

    def _await_end(self) -> None:
        # Closing with bytes unread would reset the connection, and what was sent last might be lost with it.
        until_ms = self._clock.ticks_ms() + FAREWELL_MS
        while self._clock.ticks_ms() < until_ms:
            self._poll.poll(FAREWELL_MS)
            self._reader.begin()
            while self._reader.complete(self._stream):
                self._reader.begin()

    def _drop(self) -> None:
        for end in (self._stream, self._socket):
            try:
                if end is not None:
                    end.close()
            except OSError:
                pass  # closed is closed
        self._stream = self._socket = None
        self._accepted = False

    def _lose(self, error: Exception) -> None:
        self._reason = self._reason or str(error)
        self._drop()

    # --- out -------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Send one message; the token is good for `acknowledged`. Raises OSError."""
        if qos and len(self._waiting) >= MAX_UNACKNOWLEDGED:
            raise OSError("%d messages are not acknowledged" % MAX_UNACKNOWLEDGED)
        name = topic.encode()
        packet_id = self._next_id()
        length = 2 + len(name) + (2 if qos else 0) + len(payload)
        try:
            writer = self._begin(PUBLISH | qos << 1 | (1 if retain else 0), length, True)
            writer.text(name)
            if qos:
                writer.number(packet_id)
                self._waiting.append(self._token)
            writer.put(payload)
            self._end_packet()
        except (OSError, MemoryError) as error:
            self._lose(error)  # half a packet may be out
            raise
        return self._token

    def acknowledged(self, token: int) -> bool:
        """Whether the PUBACK came on this connection."""
        return self._first_token <= token <= self._token and token not in self._waiting

    def subscribe(self, filters: "list[tuple[str, int]]") -> None:
        """One SUBSCRIBE packet for all filters, in their order; raises OSError."""
        self._ask(SUBSCRIBE, filters, 3)

    def unsubscribe(self, topics: "list[str]") -> None:
        """One UNSUBSCRIBE packet for all topics; raises OSError."""
        self._ask(UNSUBSCRIBE, [(topic, 0) for topic in topics], 2)

    def _ask(self, kind: int, filters: list, extra: int) -> None:
        packet_id = self._next_id()
        # Topics of the fleet are ASCII (but their length in bytes is what counts).
        length = 2 + sum(extra + len(item[0].encode()) for item in filters)
        try:
            writer = self._begin(kind, length, True)
            writer.number(packet_id)
            for topic, qos in filters:
                writer.text(topic.encode())
                if kind == SUBSCRIBE:
                    writer.put(bytes((qos,)))
            self._end_packet()
        except (OSError, MemoryError) as error:
            self._lose(error)  # half a packet may be out
            raise

    def _next_id(self) -> int:
        self._token += 1
        return self._token % 65535 + 1

    def _begin(self, kind: int, length: int, accepted: bool = False) -> Writer:
        if self._stream is None or (accepted and not self._accepted):
            raise OSError(self._reason or "not connected to the broker")
        self._writer.begin(self._stream, kind, length)
        return self._writer

    def _end_packet(self) -> None:
        self._writer.flush()
        self._sent_ms = self._clock.ticks_ms()

    def _await_room(self) -> None:
        room = select.poll()
        room.register(self._socket, WRITE_ONLY)  # type: ignore[arg-type]
        if not room.poll(WRITE_MS):
            raise OSError("the broker takes nothing for %d s" % (WRITE_MS // 1000))

    # --- in --------------------------------------------------------------------------------------

    def receive(self) -> "tuple[str, bytes] | None":
        """The next (topic, payload), the payload good until the next call; None when there is none."""
        if self._handed_out:
            self._reader.begin()
            self._handed_out = False
        for _ in range(MAX_PACKETS):
            if self._stream is None or not self._packet():
                break
            if self._handed_out:
                return self._message
        self._keep_alive()
        return None

    def _packet(self) -> bool:
        """Take one packet, if there is a whole one."""
        try:
            if not self._reader.complete(self._stream):
                return False
            self._heard_ms = self._clock.ticks_ms()
            self._pinged = False
            self._take(self._reader.kind & 0xF0, self._reader)
        except OSError as error:
            self._lose(error)
            return False
        if not self._handed_out:
            self._reader.begin()
        return True

    def _take(self, kind: int, packet: Reader) -> None:
        if kind == PUBLISH and self._accepted:
            self._take_message(packet)
        elif kind == PUBACK and packet.length == 2:
            self._acknowledge(packet.view[0] << 8 | packet.view[1])
        elif kind == CONNACK and packet.length == 2 and not self._accepted:
            code = packet.view[1]
            if code:
                text = REFUSALS[code - 1] if code <= len(REFUSALS) else "code %d" % code
                raise Closed("the broker refused this device: " + text)
            self._accepted = True
        elif not self._accepted:
            raise Closed("the other side speaks no MQTT")

    def _acknowledge(self, packet_id: int) -> None:
        for i in range(len(self._waiting)):
            if self._waiting[i] % 65535 + 1 == packet_id:
                self._waiting.pop(i)
                return

    def _take_message(self, packet: Reader) -> None:
        qos = packet.kind >> 1 & 3
        view = packet.view
        end = 2 + (view[0] << 8 | view[1])
        start = end + (2 if qos else 0)
        if qos == 3 or start > packet.length or start > packet.size // 2:
            raise Closed("the other side speaks no MQTT")
        if qos:
            writer = self._begin(PUBACK, 2)
            writer.put(view[end:start])
            self._end_packet()
        if not packet.fits():
            self.dropped += 1
            return
        try:
            self._message = (bytes(view[2:end]).decode(), view[start : packet.length])
            self._handed_out = True
        except UnicodeError:
            self.dropped += 1

    def _keep_alive(self) -> None:
        if not self._accepted or self._stream is None:
            return
        now_ms = self._clock.ticks_ms()
        try:
            if self._pinged and now_ms - self._heard_ms > 2 * self._keepalive_ms:
                raise Closed("the broker does not answer")
            if not self._pinged and now_ms - min(self._sent_ms, self._heard_ms) > self._keepalive_ms // 2:
                self._pinged = True
                self._begin(PINGREQ, 0)
                self._end_packet()
        except OSError as error:
            self._lose(error)

    def wait(self, timeout_ms: int) -> None:
        """Sleep until there is traffic or the time is over."""
        if self._stream is None:
            time.sleep(timeout_ms / 1000)
        else:
            self._poll.poll(timeout_ms)
