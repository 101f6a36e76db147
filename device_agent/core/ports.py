"""What a host hands to the agent: time, a way to the broker, a model runtime and a folder.

The base classes hold the contract; `transports/`, `runtimes/` and `core/storage.py` fill them in.
"""


class Unfilled(Exception):
    """A host handed in a port that lacks this method."""


class InputError(ValueError):
    """What the application handed in does not fit the model: the caller's mistake, not the model's."""


class Clock:
    """Time of one device."""

    def ticks_ms(self) -> int:
        """Milliseconds since some fixed moment of this run; never goes back and never wraps."""
        raise Unfilled("Clock.ticks_ms")

    def ticks_us(self) -> int:
        """Microseconds, for measuring one inference; never goes back and never wraps."""
        raise Unfilled("Clock.ticks_us")

    def utc(self) -> "int | None":
        """Seconds since 1970 in UTC, or None while the clock is not trusted."""
        raise Unfilled("Clock.utc")


class Transport:
    """One MQTT 3.1.1 connection with a clean session; nothing but `connect` and `wait` may block."""

    def connect(self, will_topic: str, will_payload: bytes, session: int) -> None:
        """Start a connection with a retained QoS 1 will, or raise OSError with the reason.

        May return before the broker answered: `connected` tells when it did, `failure` when it refused.
        `session` is the number in the presence messages (a log may want it). Forgets an earlier connection
        and whatever was still queued from it.
        """
        raise Unfilled("Transport.connect")

    def connected(self) -> bool:
        """Whether the broker has accepted the connection and it still stands."""
        raise Unfilled("Transport.connected")

    def failure(self) -> "str | None":
        """Why the last connection was refused or lost, in words; None when nothing is known."""
        return None

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Send or queue one message and return a token for `acknowledged`; raises OSError when it cannot."""
        raise Unfilled("Transport.publish")

    def acknowledged(self, token: int) -> bool:
        """Whether the broker acknowledged that QoS 1 message on this connection."""
        raise Unfilled("Transport.acknowledged")

    def subscribe(self, filters: "list[tuple[str, int]]") -> None:
        """Ask for (topic filter, QoS) pairs in one SUBSCRIBE packet; raises OSError when it cannot."""
        raise Unfilled("Transport.subscribe")

    def unsubscribe(self, topics: "list[str]") -> None:
        """End subscriptions in one UNSUBSCRIBE packet; raises OSError when it cannot."""
        raise Unfilled("Transport.unsubscribe")

    def receive(self) -> "tuple[str, bytes] | None":
        """The next (topic, payload) of a bounded queue in order of arrival; None when there is none."""
        raise Unfilled("Transport.receive")

    def wait(self, timeout_ms: int) -> None:
        """Sleep until there is traffic or the time is over."""
        raise Unfilled("Transport.wait")

    def disconnect(self, clean: bool) -> None:
        """Close; without `clean` the broker publishes the will."""
        raise Unfilled("Transport.disconnect")

    def fetch_range(self, url: str, start: int, end: int) -> bytes:
        """Bytes start..end-1 of `url` by HTTPS; raises OSError. Only hosts with memory for it offer this."""
        raise OSError("this device cannot fetch over HTTPS")


class Runtime:
    """Holds at most one loaded model and runs it."""

    name = ""  # as in the provisioning file: onnxruntime, litert, micropython
    format = ""  # of the artifacts it loads: onnx, tflite, plan

    def fresh(self) -> "Runtime":
        """Another empty runtime of this kind (one an app, and one for the model under test)."""
        raise Unfilled("Runtime.fresh")

    def load(self, path: str, signature: dict) -> None:  # type: ignore[type-arg]
        """Load the artifact at `path`; `signature` is the manifest's signature_spec. Any exception means it failed."""
        raise Unfilled("Runtime.load")

    def unload(self) -> None:
        """Free the model; harmless when none is loaded."""
        raise Unfilled("Runtime.unload")

    def reset(self) -> None:
        """Forget what earlier runs have left, if the model keeps anything from one run to the next."""
        return

    def run(self, x: object) -> list:  # type: ignore[type-arg]
        """Outputs for one input as real numbers, one flat sequence or array an output.

        `x` is a bytes-like raw little-endian tensor, a (nested) list of numbers, or a numpy array on CPython. An input
        that does not fit the model raises InputError that names both shapes.
        """
        raise Unfilled("Runtime.run")

    def run_raw(self, inputs: "list[bytes]") -> list:  # type: ignore[type-arg]
        """Raw little-endian output tensors (bytes-like) for raw input tensors, as the self-test holds them."""
        raise Unfilled("Runtime.run_raw")


class Storage:
    """Files in one folder of the device; every method may raise OSError."""

    writes = 0  # since this object was made: flash wears
    written_bytes = 0

    def read(self, name: str) -> "bytes | None":
        """The whole file, or None when there is none."""
        raise Unfilled("Storage.read")

    def size(self, name: str) -> int:
        """Bytes in the file; 0 when there is none."""
        raise Unfilled("Storage.size")

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        raise Unfilled("Storage.exists")

    def append(self, name: str, pieces) -> None:  # type: ignore[no-untyped-def]
        """Add each of the pieces to the end of the file, making it when needed; on disk only after `sync`."""
        raise Unfilled("Storage.append")

    def write_at(self, name: str, offset: int, data: bytes) -> None:
        """Overwrite from `offset` (at most the file's size) on, growing the file when needed."""
        raise Unfilled("Storage.write_at")

    def sync(self, name: str) -> None:
        """Return when everything written to the file is on disk."""
        raise Unfilled("Storage.sync")

    def write_atomic(self, name: str, data: bytes) -> None:
        """Replace the file: write new, flush, sync, rename. After a power cut either the old or the new is there."""
        raise Unfilled("Storage.write_atomic")

    def open_read(self, name: str):  # type: ignore[no-untyped-def]
        """The file opened for binary reading (read, seek, close)."""
        raise Unfilled("Storage.open_read")

    def remove(self, name: str) -> None:
        """Delete the file; harmless when there is none."""
        raise Unfilled("Storage.remove")

    def path(self, name: str) -> str:
        """Where the file stands, for runtimes that open it themselves."""
        raise Unfilled("Storage.path")

    def free_bytes(self) -> "int | None":
        """Bytes left on the device's storage, None when unknown."""
        raise Unfilled("Storage.free_bytes")
