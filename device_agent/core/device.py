"""What all parts of one agent share: its configuration, its ports, its state record and its voice."""
# mypy: disable-error-code="type-arg"

import gc

from device_agent.core import ports, protocol
from device_agent.core.backoff import Jitter
from device_agent.core.chunks import Missing
from device_agent.core.record import Record
from device_agent.core.spool import Spool

VERSION = "0.1.0"
# Long enough for the last words to leave before the agent does.
RESTART_MS = 2000
SPOOL_BYTES = 262144


class Device(Missing):
    """One device; `config` is the provisioning file (optional fields: see Agent)."""

    def __init__(  # type: ignore[no-untyped-def]
        self,
        config: dict,
        clock: ports.Clock,
        transport: ports.Transport,
        storage: ports.Storage,
        entropy,
        log,
    ) -> None:
        self.config = config
        self.name: str = config["device"]
        self.clock = clock
        self.transport = transport
        self.storage = storage
        self.log = log
        self.record = Record(storage, entropy)
        self.spool = Spool(storage, config.get("spool_bytes", SPOOL_BYTES))
        self.epoch: int = self.record.fields["epoch"]
        self.boot: int = self.record.fields["boot"] + 1
        self.record.fields["boot"] = self.boot
        self.jitter = Jitter(self.epoch ^ (self.boot * 2654435761))
        self.can_restart = False
        self.restart_ms: "int | None" = None  # when the host is to start the agent again
        self.reports = 0
        self.session = 0  # connections since this boot
        self.online = False
        self.hello_due = False

    def trusted_keys(self) -> list[dict]:
        """The keys that manifests may be signed with: those of the last rotation, else the provisioned ones."""
        found: list[dict] = self.record.fields.get("keys") or self.config["keys"]
        return found

    def restart_soon(self, now_ms: int) -> None:
        """Let the host start the agent again, when what was said last had time to leave."""
        self.restart_ms = now_ms + RESTART_MS

    def save(self) -> None:
        """Make the state record durable; raises OSError."""
        self.record.save()

    def say(self, message: dict) -> None:
        """Publish a status that may be lost (`hello` repeats what matters)."""
        self._identify(message)
        if self.online:
            try:
                self.publish("status", protocol.encode(message))
            except MemoryError:
                pass  # whoever says that the heap is full goes on with what helps

    def keep(self, message: dict) -> None:
        """Spool a status that must arrive."""
        self._identify(message)
        try:
            self.spool.put("status", protocol.encode(message))
        except (OSError, MemoryError) as error:
            self._dropped("status", error)

    def report(self, window) -> None:  # type: ignore[no-untyped-def]
        """Spool the report of a metrics window, unless it is empty."""
        if window.empty():
            return
        self.reports += 1
        identity = {"epoch": self.epoch, "boot": self.boot, "sequence": self.reports, "utc": self.clock.utc()}
        dropped = 0
        if self.online:
            # Offline the count waits, because this report might be dropped itself.
            dropped, self.spool.dropped = self.spool.dropped, 0
        try:
            self.spool.put("report", window.report(self.clock.ticks_ms(), identity, dropped))
        except (OSError, MemoryError) as error:
            self.spool.dropped += dropped
            self._dropped("report", error)

    def missing(self, blob: str, chunk_bytes: int, chunks: list[int]) -> None:
        """Say that chunks do not come."""
        self.say(
            {"kind": protocol.STATUS_MISSING, "blob": blob, "chunk_bytes": chunk_bytes, "chunks": chunks}
        )

    def publish(self, leaf: str, payload: bytes, retain: bool = False) -> "int | None":
        """Send to one of the device's own topics at QoS 1; None when the connection is gone."""
        try:
            return self.transport.publish(protocol.device_topic(self.name, leaf), payload, 1, retain)
        except OSError:
            return None

    def free_bytes(self) -> "int | None":
        """Bytes left in storage, None when unknown."""
        try:
            return self.storage.free_bytes()
        except OSError:
            return None

    def _identify(self, message: dict) -> None:
        message["epoch"] = self.epoch
        message["boot"] = self.boot

    def _dropped(self, leaf: str, error: Exception) -> None:
        self.spool.dropped += 1
        self.log("a %s is lost, it cannot be stored: %s" % (leaf, error))


def heap_free() -> "int | None":
    """Free heap in bytes, None where the interpreter does not tell."""
    if hasattr(gc, "mem_free"):
        return int(gc.mem_free())
    return None
