"""What a job hands out: progress on the way, measured candidates, and one result a target."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Progress:
    """One step of a job; `candidate` is set when one was just measured for `target`."""

    step: str
    done: int
    total: int
    message: str
    target: str | None = None
    candidate: dict[str, Any] | None = None


@dataclass
class Candidate:
    """One measured model for one target; sizes in bytes, times in microseconds, shares from 0 to 1."""

    id: str
    target: str
    recipe: list[dict[str, Any]]
    path: str = ""
    format: str = ""
    bytes: int = 0
    transport_bytes: int = 0
    transport: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    parameters: int = 0
    macs: int = 0
    peak_ram_bytes: int | None = None
    accuracy: dict[str, Any] | None = None
    reference_accuracy: dict[str, Any] | None = None
    drop: dict[str, Any] | None = None
    agreement: float | None = None
    host_latency_us: dict[str, float] | None = None
    estimated_latency_us: int | None = None
    fits: bool = False
    shown: bool = False
    missed: list[str] = field(default_factory=list)
    on_front: bool = False
    rejected: str | None = None
    notes: list[str] = field(default_factory=list)
    lineage: dict[str, Any] = field(default_factory=dict)
    test_accuracy: dict[str, Any] | None = None

    @property
    def was_measured(self) -> bool:
        """Whether it could be made and measured at all."""
        return self.accuracy is not None

    def for_target(self, target: str) -> "Candidate":
        """A copy to be judged for another target; the measurements are shared."""
        return replace(self, target=target, missed=[], notes=list(self.notes), lineage=dict(self.lineage))

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON."""
        return asdict(self)


@dataclass
class Result:
    """What came out for one target: the winner, or which budget binds and the nearest candidate."""

    target: str
    met: bool
    shown: bool
    winner: Candidate | None
    candidates: list[Candidate]
    sentence: str
    binding: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON; the winner by its id."""
        return {
            "target": self.target,
            "met": self.met,
            "shown": self.shown,
            "winner": self.winner.id if self.winner else None,
            "binding": self.binding,
            "sentence": self.sentence,
            "candidates": [candidate.as_dict() for candidate in self.candidates],
        }
