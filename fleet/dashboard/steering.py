"""What a person typed beside a verb of a rollout: a reason, a time, a wave, a part."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fleet.errors import Refused
from fleet.rollouts.parts import Part

MAX_NAMES = 4000


@dataclass(frozen=True)
class Asked:
    """The fields of the form behind a button; what is missing means nothing special."""

    fields: Mapping[str, str]
    now: datetime

    @property
    def note(self) -> str:
        """Why."""
        return self._text("reason")

    def number(self, name: str) -> int | None:
        """A whole number, or None."""
        text = self._text(name)
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None

    def start_at(self) -> datetime | None:
        """A time in UTC, or None for now."""
        text = self._text("start_at")
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise Refused(f"'{text[:40]}' is no time", remedy="Write it like 2027-01-31T02:00.") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def part(self) -> Part:
        """Which devices are meant."""
        names = (name.strip() for name in self._text("devices").split(","))
        return Part(tuple(filter(None, names)), self.number("wave"), self._text("target"))

    def _text(self, name: str) -> str:
        # PostgreSQL refuses zero characters.
        return str(self.fields.get(name, "")).replace("\x00", "").strip()[:MAX_NAMES]
