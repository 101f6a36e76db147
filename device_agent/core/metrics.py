"""One window of on-device metrics, in bounded memory, and the report it becomes (at most 4 KiB, always)."""
# mypy: disable-error-code="type-arg"

from device_agent.core import protocol
from device_agent.core.histogram import Histogram

TOP_CLASSES = 16
CONFIDENCE_BINS = 10
OTHER = "other"

# Bounds that keep a report below 4 KiB whatever comes: 150 buckets of at most 17 characters, 17 classes of at most 44.
MAX_BUCKETS = 150
MAX_CLASSES = 64
MAX_NAME_CHARS = 32


class Window:
    """What one slot did from `start_ms` on, for one artifact in one phase."""

    def __init__(self, app: str, artifact: str, slot: str, phase: str, start_ms: int) -> None:
        self.app = app
        self.artifact = artifact
        self.slot = slot
        self.phase = phase
        self.start_ms = start_ms
        self.n = 0
        self.errors = 0
        self.latency = Histogram()
        self.labelled = 0
        self.correct = 0
        self.values = 0
        self.sum_abs_err = 0.0
        self.sum_sq_err = 0.0
        self.classes: dict[str, int] = {}
        self.confidence = [0] * CONFIDENCE_BINS
        self.heap_free_min: "int | None" = None

    def ran(self, latency_us: int, heap_free: "int | None") -> None:
        """One answer was given."""
        self.n += 1
        self.latency.add(latency_us)
        if heap_free is not None and (self.heap_free_min is None or heap_free < self.heap_free_min):
            self.heap_free_min = heap_free

    def answered(self, name: str, confidence: float) -> None:
        """The answer named a class."""
        name = name[:MAX_NAME_CHARS]
        if name not in self.classes and len(self.classes) >= MAX_CLASSES:
            name = OTHER
        self.classes[name] = self.classes.get(name, 0) + 1
        self.confidence[min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += 1

    def failed(self) -> None:
        """One request ended in an error."""
        self.errors += 1

    def judged(self, correct: bool) -> None:
        """The true class of one answer is known."""
        self.labelled += 1
        if correct:
            self.correct += 1

    def compared(self, abs_err: float, sq_err: float) -> None:
        """The true value of one answer is known."""
        self.values += 1
        self.sum_abs_err += abs_err
        self.sum_sq_err += sq_err

    def empty(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.n or self.errors or self.labelled or self.values)

    def full(self) -> bool:
        """Whether more latencies might make the report too long."""
        return len(self.latency.counts) >= MAX_BUCKETS

    def report(self, end_ms: int, identity: dict, dropped: int) -> bytes:
        """The report; `identity` brings epoch, boot, sequence and utc."""
        message = dict(identity)
        message.update(
            {
                "app": self.app,
                "artifact": self.artifact,
                "slot": self.slot,
                "phase": self.phase,
                "start_ms": self.start_ms,
                "end_ms": end_ms,
                "n": self.n,
                "errors": self.errors,
                "latency": self.latency.to_wire(),
                "heap_free_min": self.heap_free_min,
                "dropped": dropped,
            }
        )
        message.update(self._quality())
        return protocol.encode(message)

    def _quality(self) -> dict:
        quality: dict = {}
        if self.values:
            # The number of values compared travels as `labelled`, as for classes.
            quality = {
                "labelled": self.values,
                "sum_abs_err": self.sum_abs_err,
                "sum_sq_err": self.sum_sq_err,
            }
        elif self.classes:
            quality = {"labelled": self.labelled, "correct": self.correct}
        if self.classes:
            quality["classes"] = top_classes(self.classes)
            quality["confidence"] = self.confidence
        return quality


def top_classes(counts: dict) -> dict:
    """The 16 most frequent classes, all others added up as `other`."""
    names = sorted((name for name in counts if name != OTHER), key=lambda name: -counts[name])
    top = {name: counts[name] for name in names[:TOP_CLASSES]}
    rest = sum(counts[name] for name in names[TOP_CLASSES:]) + counts.get(OTHER, 0)
    if rest:
        top[OTHER] = rest
    return top
