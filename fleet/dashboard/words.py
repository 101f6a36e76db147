"""How numbers, times and states are said to a person; pure functions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from compression_jobs.pipeline.wording import NAMES

UNKNOWN = "–"

GOOD, WORK, WAIT, WARN, BAD, OFF = "good", "work", "wait", "warn", "bad", "off"

TONES = {
    GOOD: "ready succeeded passed in_time installed active answered met fits champion decided counted promoted",
    WORK: "checking running downloading verifying testing trial soaking offered rolling_back sent watched starting",
    WAIT: "queued pending draft scheduled never_seen waiting",
    WARN: "overdue held awaiting_approval paused timed_out rejected rolled_back open undecided",
    BAD: "refused failed aborted revoked missed",
    OFF: "offline retired cancelled superseded skipped expired closed stopped out",
}
TONE = {state: tone for tone, states in TONES.items() for state in states.split()}

STEPS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def tone(state: str) -> str:
    """Which of the six tones a state is painted in."""
    return TONE.get(state.replace(" ", "_"), OFF)


def label(state: str) -> str:
    """A state or kind as words."""
    return state.replace("_", " ")


def size(value: float | None) -> str:
    """Bytes in binary units: 512 B, 96.4 KiB, 1.5 MiB."""
    if value is None:
        return UNKNOWN
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or abs(amount) >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def micros(value: float | None) -> str:
    """Microseconds: 870 µs, 12.3 ms, 1.20 s."""
    if value is None:
        return UNKNOWN
    if value < 1000:
        return f"{value:.0f} µs"
    if value < 1_000_000:
        return f"{value / 1000:.3g} ms" if value < 99_950 else f"{value / 1000:.0f} ms"
    return f"{value / 1_000_000:.2f} s"


def count(value: float | None) -> str:
    """1,234 as it is; from a hundred thousand on shortened: 1.2 M."""
    if value is None:
        return UNKNOWN
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(value) >= limit:
            return f"{value / (1000 if unit == 'k' else limit):.3g} {unit}"
    return f"{value:,.0f}"


def share(value: float | None) -> str:
    """0.956 as 95.6 %."""
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def interval(value: Mapping[str, Any] | None) -> str:
    """A share, R² or AUC with its 95 % interval and how many rows it stands on."""
    if not value or value.get("value") is None:
        return UNKNOWN
    name, parts = NAMES.get(value.get("metric", "")), []
    if value.get("low") is not None and value.get("high") is not None:
        low, high = value["low"], value["high"]
        parts.append(f"{low:.3f}–{high:.3f}" if name else f"{100 * low:.1f}–{100 * high:.1f} %")
    if value.get("n") is not None:
        parts.append(f"n = {count(value['n'])}")
    text = f"{name} {value['value']:.3f}" if name else share(value["value"])
    return text + (f" ({', '.join(parts)})" if parts else "")


def points(value: Mapping[str, Any] | None) -> str:
    """A drop in percentage points, or of R² or AUC, with its interval."""
    if not value or value.get("value") is None:
        return UNKNOWN
    name = NAMES.get(value.get("metric", ""))
    if name:
        return f"{value['value']:.3f} of {name} ({value['low']:.3f} to {value['high']:.3f})"
    text = f"{100 * value['value']:.1f} points"
    if value.get("low") is None or value.get("high") is None:
        return text
    return f"{text} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def duration(seconds: float) -> str:
    """A span in the two largest units that matter: 45 s, 3 min 20 s, 2 h 5 min, 4 d 3 h."""
    whole = max(0, round(seconds))
    for unit, smaller, name, smaller_name in (
        (86400, 3600, "d", "h"),
        (3600, 60, "h", "min"),
        (60, 1, "min", "s"),
    ):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def distance(moment: datetime, now: datetime) -> str:
    """How far a moment is from now: 'just now', '3 minutes ago', 'in 2 hours'."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 10:
        return "just now"
    for length, name in (*STEPS, (1, "second")):
        if abs(seconds) >= length:
            number = int(abs(seconds) // length)
            text = f"{number} {name}{'' if number == 1 else 's'}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "just now"


def moment(value: str | datetime | None) -> datetime | None:
    """An ISO text as a moment in UTC; None for what is no such text."""
    if isinstance(value, datetime) or value is None:
        return value
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def plural(number: int, one: str, many: str = "") -> str:
    """'1 device', '3 devices'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """A text with a capital letter and a full stop, as `reason`s are kept without."""
    text = text.strip()
    if not text:
        return ""
    # A first word such as meter-04 or int8 is a name, which keeps its spelling.
    start = text[0].upper() if text.split()[0].strip(",.;:").isalpha() else text[0]
    return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
