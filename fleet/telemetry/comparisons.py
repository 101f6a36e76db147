"""What each of many devices reported before and after one moment, as one merged window each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from device_agent.core.histogram import Histogram
from fleet.telemetry.merging import latency_of, merge_counts
from fleet.telemetry.models import Report, Rollup
from fleet.telemetry.rollups import bucket_start

# Older reports say how the device was in another season.
LOOK_BACK = timedelta(days=3)
_HOUR = timedelta(hours=1)
AT_ONCE = 500


@dataclass(frozen=True)
class Question:
    """One device: what it ran until `since`, and what it runs after."""

    device: int
    before_sha256: str
    after_sha256: str
    since: datetime


@dataclass(frozen=True)
class Side:
    """Everything of one device on one artifact, merged."""

    counts: Report
    latency: Histogram


@dataclass(frozen=True)
class Comparison:
    """Both sides; a side without any inference is None."""

    before: Side | None
    after: Side | None


def compare(app: str, questions: Sequence[Question]) -> dict[int, Comparison]:
    """A comparison a device; the number of queries grows by one for every 500 devices, not for every device."""
    found: dict[int, Comparison] = {}
    questions = sorted(questions, key=lambda question: question.since)
    for start in range(0, len(questions), AT_ONCE):
        some = questions[start : start + AT_ONCE]
        windows: dict[int, list[tuple[datetime, Any]]] = {}
        for at, window in _windows(app, some):
            windows.setdefault(window.device_id, []).append((at, window))
        found |= {q.device: _split(q, windows.get(q.device, [])) for q in some}
    return found


def _windows(app: str, questions: Sequence[Question]) -> Iterable[tuple[datetime, Rollup | Report]]:
    hashes = {sha for q in questions for sha in (q.before_sha256, q.after_sha256) if sha}
    scope = {"app": app, "device__in": [q.device for q in questions], "artifact_sha256__in": hashes}
    times = sorted(bucket_start(q.since, Rollup.Resolution.HOUR) for q in questions)
    oldest, first, last = times[0] - LOOK_BACK, times[0], times[-1] + _HOUR
    # Minutes only around the moments themselves: a device that reports for days has thousands of them.
    around = Q(resolution=Rollup.Resolution.MINUTE, start_at__gte=first, start_at__lt=last)
    whole = Q(resolution=Rollup.Resolution.HOUR) & (Q(start_at__lt=first) | Q(start_at__gte=last))
    rollups = Rollup.objects.filter(around | whole, start_at__gte=oldest, **scope)
    reports = Report.objects.filter(rolled_up=False, end_at__gte=oldest, **scope)
    for rollup in rollups.exclude(phase="shadow"):
        yield rollup.start_at, rollup
    for report in reports.exclude(phase="shadow"):
        yield report.end_at, report


def _split(question: Question, windows: Sequence[tuple[datetime, Any]]) -> Comparison:
    # A minute belongs to the side on which it begins; the artifact tells them apart where it changed.
    since = bucket_start(question.since, Rollup.Resolution.MINUTE)
    if question.before_sha256 == question.after_sha256:
        since += timedelta(minutes=1)
    before = [w for at, w in windows if at < since and w.artifact_sha256 == question.before_sha256]
    after = [w for at, w in windows if at >= since and w.artifact_sha256 == question.after_sha256]
    return Comparison(_side(before), _side(after))


def _side(windows: Sequence[Any]) -> Side | None:
    total = Report()
    for window in windows:
        merge_counts(total, window)
    if not total.n:
        return None
    return Side(total, latency_of(window.latency for window in windows))
