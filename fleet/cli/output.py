"""How answers are shown: tables for people, JSON for programs."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compression_jobs.pipeline.wording import NAMES

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API sends it.")]
Row = Mapping[str, Any]
# A heading, and what stands under it: a dotted path into the row, or a function of it.
Column = tuple[str, str | Callable[[Row], object]]

GOOD = {"ready", "succeeded", "passed", "active", "ok", "in time"}
BAD = {"refused", "failed", "rolled_back", "aborted", "rejected", "revoked", "down", "overdue", "timed_out"}

console = Console(soft_wrap=False)


def show(found: Any, columns: Sequence[Column], as_json: bool, *, empty: str = "nothing yet") -> None:
    """Print rows as a table, one row as a list of facts, or either as JSON."""
    if as_json:
        print_json(found)
    elif isinstance(found, Mapping):
        show_facts(found, columns)
    elif found:
        console.print(table(found, columns))
    else:
        console.print(Text(empty, style="dim"))


def print_json(found: Any) -> None:
    """Print JSON that other programs read."""
    print(json.dumps(found, indent=2, ensure_ascii=False))


def table(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    """A table with one row an item."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading, _ in columns:
        made.add_column(heading)
    for row in rows:
        made.add_row(*(cell(row, what) for _, what in columns))
    return made


def show_facts(row: Row, columns: Sequence[Column]) -> None:
    """One item: heading and value a line, then every problem."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column()
    for heading, what in columns:
        value = cell(row, what)
        if value.plain:
            made.add_row(heading, value)
    console.print(made)
    for problem in row.get("problems") or ():
        console.print(Text(f"  - {problem}"))


def cell(row: Row, what: str | Callable[[Row], object]) -> Text:
    """The value of one column, coloured when it is a state; never read as markup."""
    value = what(row) if callable(what) else path(row, what)
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    style = "green" if text in GOOD else "red" if text in BAD else ""
    return Text(text, style=style)


def path(row: Any, dotted: str) -> Any:
    """The value under a dotted path, or None."""
    for part in dotted.split("."):
        row = row.get(part) if isinstance(row, Mapping) else None
    return row


def size(dotted: str) -> Callable[[Row], str]:
    """A column of bytes, in units people read."""

    def shown(row: Row) -> str:
        value = path(row, dotted)
        return "" if value is None else bytes_text(float(value))

    return shown


def bytes_text(value: float) -> str:
    """`512 B`, `12.3 KiB`, `4.0 MiB`, ..."""
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def share(dotted: str) -> Callable[[Row], str]:
    """A column of an estimate with its interval and n: `96.4 % (93.3 to 98.1, n = 250)`, or `R² 0.482 (...)`."""

    def shown(row: Row) -> str:
        found = path(row, dotted)
        if not isinstance(found, Mapping) or found.get("value") is None:
            return ""
        name = NAMES.get(found.get("metric", ""))
        factor, digits = (1, 3) if name else (100, 1)
        value, low, high = (
            "" if found.get(part) is None else f"{factor * found[part]:.{digits}f}"
            for part in ("value", "low", "high")
        )
        text = f"{name} {value}" if name else f"{value} %"
        if low and high:
            text += f" ({low} to {high}, n = {found.get('n', '?')})"
        return text

    return shown


def ago(dotted: str) -> Callable[[Row], str]:
    """A column of times, as how long ago they were."""

    def shown(row: Row) -> str:
        value = path(row, dotted)
        if not value:
            return ""
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(value))).total_seconds()
        for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
            if seconds >= length:
                return f"{seconds / length:.0f} {unit} ago"
        return f"{max(0, seconds):.0f} s ago"

    return shown
