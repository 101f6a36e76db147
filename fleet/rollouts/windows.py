"""Maintenance windows: whether one is open now, and when it opens next, in a device's own time zone."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from fleet.rollouts.conditions import Window

NIGHT = Window(cron="0 22 * * *", minutes=8 * 60)


@dataclass(frozen=True)
class Opening:
    """One time of being open, in UTC."""

    start: datetime
    end: datetime

    def holds(self, now: datetime) -> bool:
        """Whether it is open now."""
        return self.start <= now < self.end


def opening(window: Window, zone: str, now: datetime) -> Opening | None:
    """The opening that holds now, or else the next one; None when the expression names no moment that ever comes."""
    local = now.astimezone(zone_of(zone, window.zone))
    length = timedelta(minutes=window.minutes)
    before = next(CronSim(window.cron, local + timedelta(seconds=1), reverse=True), None)
    if before is not None:
        last = _from(before, length)
        if last.holds(now):
            return last
    after = next(CronSim(window.cron, local), None)
    return None if after is None else _from(after, length)


def is_open(window: Window | None, zone: str, now: datetime) -> bool:
    """Whether devices of a zone may be asked now."""
    if window is None:
        return True
    found = opening(window, zone, now)
    return found is not None and found.holds(now)


def tonight(zone: str, default: str, now: datetime) -> datetime:
    """When the night begins in a zone: now, if it has begun, or at 22:00."""
    found = opening(NIGHT, zone or default, now)
    return max(now, found.start) if found else now


@lru_cache(maxsize=1024)
def zone_of(name: str, default: str = "UTC") -> ZoneInfo:
    """A time zone by the name on a device's label; what nobody knows is the default."""
    try:
        return ZoneInfo(name or default)
    except (KeyError, OSError, ValueError):
        return ZoneInfo(default)


def is_known(name: str) -> bool:
    """Whether a label names a time zone."""
    return not name or str(zone_of(name)) == name


def _from(start: datetime, length: timedelta) -> Opening:
    # Lengths are real time: a window that begins before the clock changes is as long as any other.
    began = start.astimezone(UTC)
    return Opening(began, began + length)
