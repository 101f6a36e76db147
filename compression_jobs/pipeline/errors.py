"""What can go wrong in the pipeline, in words a person can act on.

PipelineError
├── Refused         the input is not acceptable (exit code 2)
├── Cancelled       somebody asked to stop
└── SandboxError    a limited child ran out of its limits, or died
"""

from collections.abc import Iterable
from typing import Any

# Names come from files, and a hostile one may be as long as the file.
SHOWN_PLACES = 100
SHOWN_NAME = 200
SHOWN_CHARACTERS = 20_000


class PipelineError(Exception):
    """Something failed at `node` (or in general) for the reason `message`; `remedy` is the way out."""

    def __init__(
        self, message: str, *, node: str | None = None, remedy: str = "", problems: Iterable[str] = ()
    ) -> None:
        self.message = _short(message, SHOWN_CHARACTERS)
        self.node = None if node is None else _short(node, SHOWN_NAME)
        self.remedy = remedy
        self.problems = [_shortened(problem) for problem in problems]
        super().__init__(self.message)

    def __str__(self) -> str:
        place = f"{self.node}: " if self.node else ""
        way_out = f"; {self.remedy}" if self.remedy else ""
        return f"{place}{self.message}{way_out}"

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON, with the class name in `kind`."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "node": self.node,
            "remedy": self.remedy,
            "problems": self.problems,
        }


class Refused(PipelineError):
    """The input is not acceptable; `problems` lists every offending place at once."""


class Cancelled(PipelineError):
    """The work was stopped because somebody asked for it."""


class SandboxError(PipelineError):
    """A limited child exceeded its time, memory or output, or crashed."""


def from_dict(fields: dict[str, Any]) -> PipelineError:
    """The error that `as_dict` described."""
    kinds = {kind.__name__: kind for kind in (Refused, Cancelled, SandboxError)}
    kind = kinds.get(fields["kind"], PipelineError)
    return kind(fields["message"], node=fields["node"], remedy=fields["remedy"], problems=fields["problems"])


def refuse_all(problems: list[str], remedy: str = "") -> None:
    """Raise one Refused that names all `problems`, places with the same reason together; do nothing without any."""
    if not problems:
        return
    places: dict[str, list[str]] = {}
    for problem in map(_shortened, problems):
        place, separator, reason = problem.partition(": ")
        places.setdefault(reason if separator else place, []).append(place)
    reasons = [
        f"{_listed(where, ', ')}: {reason}" if where != [reason] else reason
        for reason, where in places.items()
    ]
    raise Refused(_listed(reasons, "; "), remedy=remedy, problems=problems)


def _listed(texts: list[str], separator: str) -> str:
    """All of them joined; a hostile file has a million, a person reads the first hundred."""
    more = [f"and {len(texts) - SHOWN_PLACES:,} more"] if len(texts) > SHOWN_PLACES else []
    return separator.join(texts[:SHOWN_PLACES] + more)


def _shortened(problem: str) -> str:
    """A problem whose place and reason are of a length that a person reads."""
    place, separator, reason = problem.partition(": ")
    return f"{_short(place, SHOWN_NAME)}{separator}{_short(reason, 5 * SHOWN_NAME)}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
