"""Answers in CSV, for tables and for the values behind charts."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from django.http import HttpResponse

# A cell that starts like this is run as a formula by spreadsheets; names and reasons come from devices.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def answer(rows: Iterable[Sequence[Any]], filename: str) -> HttpResponse:
    """The rows as a download."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        writer.writerow([_safe(cell) for cell in row])
    found = HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8")
    found["Content-Disposition"] = f'attachment; filename="{filename}.csv"'
    return found


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
