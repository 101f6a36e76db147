"""Reports merged into minutes and hours: each report counts in each exactly once, however late it comes."""

from datetime import datetime, timedelta

from django.db import transaction

from fleet.telemetry.merging import merge
from fleet.telemetry.models import Report, Rollup

AT_ONCE = 500
MOST_A_RUN = 10_000

WIDTH = {Rollup.Resolution.MINUTE: timedelta(minutes=1), Rollup.Resolution.HOUR: timedelta(hours=1)}
KEEP_MINUTES = timedelta(days=14)

Key = tuple[str, datetime, int, str, str, str]


def roll_up(most: int = MOST_A_RUN) -> int:
    """Merge reports that wait for it; returns how many."""
    done = 0
    while done < most:
        taken = roll_up_once()
        if not taken:
            break
        done += taken
    return done


@transaction.atomic
def roll_up_once() -> int:
    """Merge one batch; the mark on the reports and the rollups change together or not at all."""
    waiting = Report.objects.select_for_update().filter(rolled_up=False).order_by("pk")
    reports = list(waiting[:AT_ONCE])
    # Whoever marks a report merges it: a second worker that read the same rows marks none of them.
    if Report.objects.filter(pk__in=[r.pk for r in reports], rolled_up=False).update(rolled_up=True) != len(
        reports
    ):
        transaction.set_rollback(True)
        return 0
    fresh: dict[Key, Rollup] = {}
    for report in reports:
        for resolution in WIDTH:
            merge(fresh.setdefault(_key(report, resolution), _empty(report, resolution)), report)
    _add(fresh)
    return len(reports)


def bucket_start(moment: datetime, resolution: str) -> datetime:
    """The start of the minute or hour that holds a moment."""
    whole = moment.replace(second=0, microsecond=0)
    return whole.replace(minute=0) if resolution == Rollup.Resolution.HOUR else whole


def forget_minutes(now: datetime) -> int:
    """Delete minutes that are old; hours stay."""
    old = Rollup.objects.filter(resolution=Rollup.Resolution.MINUTE, start_at__lt=now - KEEP_MINUTES)
    return old.delete()[0]


def _key(report: Report, resolution: str) -> Key:
    start = bucket_start(report.end_at, resolution)
    return (resolution, start, report.device_id, report.app, report.artifact_sha256, report.phase)


def _empty(report: Report, resolution: str) -> Rollup:
    return Rollup(
        resolution=resolution,
        start_at=bucket_start(report.end_at, resolution),
        device_id=report.device_id,
        app=report.app,
        artifact_id=report.artifact_id,
        artifact_sha256=report.artifact_sha256,
        phase=report.phase,
    )


def _add(fresh: dict[Key, Rollup]) -> None:
    for key, rollup in sorted(fresh.items()):
        same = Rollup.objects.select_for_update().filter(**dict(zip(_FIELDS, key, strict=True)))
        known = same.first()
        if known is None:
            rollup.save()
        else:
            merge(known, rollup)
            known.save()


_FIELDS = ("resolution", "start_at", "device_id", "app", "artifact_sha256", "phase")
