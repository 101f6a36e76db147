"""The connection to the broker: kept up for ever, with presence, hello, and the spool behind it."""
# mypy: disable-error-code="type-arg"

from device_agent.core import protocol
from device_agent.core.backoff import BackOff
from device_agent.core.device import VERSION, Device, heap_free

RETRY_MS = 1000
RETRY_LIMIT_MS = 60000
CONNECT_MS = 20000
CONNECT_LOOK_MS = 100
# A broker that throws us off at once (another client with our id) must not be answered every second.
STEADY_MS = 30000
IN_FLIGHT = 8
IN_FLIGHT_LOOK_MS = 100
ACKNOWLEDGE_MS = 60000
HEARTBEAT_S = 30


class Link:
    """One state machine: waiting, connecting, online."""

    def __init__(self, device: Device, apps: dict) -> None:
        self.device = device
        self.apps = apps
        self.transport = device.transport
        self.back_off = BackOff(device.jitter, RETRY_MS, RETRY_LIMIT_MS)
        self.until_ms = 0
        self.online_ms = 0
        self.heartbeat_ms = 0
        self.in_flight: list = []  # (token, ticket of the spool, sent at), in order
        self.act = self._step_waiting

    def step(self, now_ms: int) -> int:
        """Do one thing; milliseconds to wait."""
        try:
            return self.act(now_ms)
        except MemoryError:
            # Who knows what was not said: a new connection says all of it, in a heap without this one.
            self._lost("the heap is exhausted", now_ms)
            return 0

    # --- connecting ------------------------------------------------------------------------------

    def _step_waiting(self, now_ms: int) -> int:
        if now_ms < self.until_ms:
            return self.until_ms - now_ms
        device = self.device
        device.session = min(device.session + 1, 65535)
        will = protocol.device_topic(device.name, "presence")
        try:
            self.transport.connect(will, self._presence(False), self.session())
        except OSError as error:
            self._failed(str(error), now_ms)
            return 0
        self.until_ms = now_ms + CONNECT_MS
        self.act = self._step_connecting
        return 0

    def _step_connecting(self, now_ms: int) -> int:
        if self.transport.connected():
            self._come_online(now_ms)
            return 0
        reason = self.transport.failure()
        if reason is None and now_ms < self.until_ms:
            return CONNECT_LOOK_MS
        self.transport.disconnect(False)
        self._failed(reason or "no answer within %d s" % (CONNECT_MS // 1000), now_ms)
        return 0

    def _failed(self, reason: str, now_ms: int) -> None:
        wait_ms = self.back_off.wait_ms()
        self.device.log(
            "no connection to the broker: %s; next try in %d s" % (reason, (wait_ms + 999) // 1000)
        )
        self.until_ms = now_ms + wait_ms
        self.act = self._step_waiting

    def _come_online(self, now_ms: int) -> None:
        device = self.device
        device.online = True
        self.online_ms = now_ms
        self.in_flight = []
        device.spool.rewind()
        self.act = self._step_online
        device.log("connected to the broker")
        self._say_presence(now_ms)
        filters = [(protocol.desired_topic(device.name, app), 1) for app in self.apps]
        filters.append((protocol.device_topic(device.name, "command"), 1))
        try:
            self.transport.subscribe(filters)
        except OSError:
            return  # gone again, which the next step finds out
        device.hello_due = True
        for app in self.apps:
            self.apps[app].delivery.reconnected()

    # --- online ----------------------------------------------------------------------------------

    def _step_online(self, now_ms: int) -> int:
        if not self.transport.connected():
            self._lost(self.transport.failure() or "closed by the other side", now_ms)
            return 0
        if self.device.hello_due:
            self.device.hello_due = False
            self.device.publish("hello", self._hello())
            return 0
        if now_ms >= self.heartbeat_ms:
            self._say_presence(now_ms)
            return 0
        return min(self._pump(now_ms), self.heartbeat_ms - now_ms)

    def _lost(self, reason: str, now_ms: int) -> None:
        self.device.online = False
        self.transport.disconnect(False)
        if now_ms - self.online_ms >= STEADY_MS:
            self.back_off.reset()
        self._failed("lost, " + reason, now_ms)

    def _pump(self, now_ms: int) -> int:
        """Move the spool on: drop what is acknowledged, send what is next."""
        spool = self.device.spool
        if self.in_flight:
            token, ticket, sent_ms = self.in_flight[0]
            if self.transport.acknowledged(token):
                self.in_flight.pop(0)
                spool.acknowledge(ticket)
                return 0
            if now_ms - sent_ms >= ACKNOWLEDGE_MS:
                self._lost("a message was not acknowledged for %d s" % (ACKNOWLEDGE_MS // 1000), now_ms)
                return 0
        if len(self.in_flight) < IN_FLIGHT:
            entry = spool.next()
            if entry is not None:
                self._send(entry, now_ms)
                return 0
        return IN_FLIGHT_LOOK_MS if self.in_flight else RETRY_LIMIT_MS

    def _send(self, entry: tuple, now_ms: int) -> None:
        token = self.device.publish(entry[0], entry[1])
        if token is None:
            self._lost("a message could not be sent", now_ms)
        else:
            self.in_flight.append((token, entry[2], now_ms))

    # --- presence and hello ----------------------------------------------------------------------

    def session(self) -> int:
        """The number of this connection; rises over restarts, too."""
        return self.device.boot * 65536 + self.device.session

    def _presence(self, online: bool) -> bytes:
        return protocol.presence(online, self.device.epoch, self.session())

    def _say_presence(self, now_ms: int) -> None:
        seconds = self.device.config.get("heartbeat_s", HEARTBEAT_S)
        self.heartbeat_ms = now_ms + self.device.jitter.around(1000 * seconds)
        self.device.publish("presence", self._presence(True), True)

    def _hello(self) -> bytes:
        device, config = self.device, self.device.config
        utc = device.clock.utc()
        writes, written_bytes = device.record.wear()
        return protocol.encode(
            {
                "protocol": [protocol.VERSION],
                "epoch": device.epoch,
                "boot": device.boot,
                "session": self.session(),
                "board": config.get("board", config["target"]),
                "runtime": config["runtime"],
                "agent": VERSION,
                "heap_free": heap_free(),
                "flash_free": device.free_bytes(),
                "flash_writes": writes,
                "flash_written_bytes": written_bytes,
                "clock": utc is not None,
                "utc": utc,
                "uptime_ms": device.clock.ticks_ms(),
                "keys": [key["id"] for key in device.trusted_keys()],
                "asks": bool(config.get("ask")),
                "apps": {app: self.apps[app].facts() for app in self.apps},
            }
        )

    def close(self) -> None:
        """An orderly end: say so, so that nobody waits for the will."""
        if self.device.online:
            self.device.publish("presence", self._presence(False), True)
        self.device.online = False
        self.transport.disconnect(True)
