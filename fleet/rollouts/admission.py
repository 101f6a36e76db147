"""Which devices may be asked now: windows, consent, waits between tries, the rate, and budgets of bytes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from fleet.rollouts import windows
from fleet.rollouts.conditions import Rate
from fleet.rollouts.strategy import Strategy

_UNANSWERED, _TONIGHT = "wanted", "tonight"


@dataclass(frozen=True)
class Waiting:
    """A pending delivery, as far as admission is concerned."""

    key: UUID
    device: int
    bytes: int
    site: str = ""
    zone: str = ""
    consent: str = ""
    not_before: datetime | None = None
    byte_budget: int | None = None
    at_work: bool = False  # for another app


@dataclass(frozen=True)
class Spent:
    """Bytes of the last 24 hours, by device and by site."""

    by_device: Mapping[int, int] = field(default_factory=dict)
    by_site: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Admission:
    """Who may be asked now, in order, and why the others wait: how many for each reason."""

    chosen: list[Waiting]
    reasons: Counter[str]

    @property
    def sentence(self) -> str:
        """What those that wait are waiting for."""
        return "; ".join(
            f"{n} wait{'s' if n == 1 else ''} {reason}" for reason, n in self.reasons.most_common(4)
        )


def admit(
    waiting: Iterable[Waiting],
    rules: Strategy,
    spent: Spent,
    now: datetime,
    at_most: int | None = None,
    and_why: bool = True,
) -> Admission:
    """Go through those that wait in the order of the plan; what is chosen is spent at once.

    Without `and_why` it stops at the last that may be chosen, and the others have no reasons.
    """
    desk = _Desk(rules, spent, now)
    chosen: list[Waiting] = []
    reasons: Counter[str] = Counter()
    for each in waiting:
        if at_most is not None and len(chosen) >= at_most:
            if not and_why:
                break
            reasons["for those before them"] += 1
            continue
        reason = desk.obstacle(each)
        if reason:
            reasons[reason] += 1
        else:
            desk.spend(each)
            chosen.append(each)
    return Admission(chosen, reasons)


def rate_now(rate: Rate, succeeded: int) -> int:
    """How many may be asked a minute once so many have succeeded."""
    steps = succeeded // rate.after_successes
    grown = rate.per_minute
    for _ in range(steps):
        if grown >= rate.most_per_minute or rate.factor == 1:
            break
        # Rounded up, or a small rate would never grow.
        grown = max(grown + 1, int(grown * rate.factor))
    return min(grown, rate.most_per_minute)


def wait_before_try(rules: Strategy, tries: int) -> int:
    """Seconds before the next try, after so many."""
    retry = rules.retry
    return int(min(retry.first_wait_s * retry.factor**tries, retry.most_wait_s))


class _Desk:
    """Keeps count while devices are admitted one after the other."""

    def __init__(self, rules: Strategy, spent: Spent, now: datetime) -> None:
        self.rules, self.now = rules, now
        self.by_device, self.by_site = dict(spent.by_device), dict(spent.by_site)
        self._windows: dict[str, str] = {}

    def obstacle(self, each: Waiting) -> str:
        """Why the device is not asked now, or ''."""
        if each.not_before is not None and each.not_before > self.now:
            return "for a later try, or for the night"
        if each.consent == _UNANSWERED:
            return "for the consent of the owner"
        if each.consent == _TONIGHT and self._is_day(each.zone):
            return "for the night"
        if each.at_work:
            return "for another app of the device"
        return self._closed(each.zone) or self._over_budget(each)

    def _is_day(self, zone: str) -> bool:
        """A wave may open days after an owner said tonight; where there is a window, that is the time of the rollout."""
        return self.rules.window is None and not windows.is_open(windows.NIGHT, zone, self.now)

    def spend(self, each: Waiting) -> None:
        """Count what the device will take."""
        self.by_device[each.device] = self.by_device.get(each.device, 0) + each.bytes
        self.by_site[each.site] = self.by_site.get(each.site, 0) + each.bytes

    def _closed(self, zone: str) -> str:
        if self.rules.window is None:
            return ""
        if zone not in self._windows:
            found = windows.opening(self.rules.window, zone, self.now)
            if found is None:
                self._windows[zone] = "for a window that never opens"
            elif not found.holds(self.now):
                self._windows[zone] = f"for a window, the next opens at {found.start:%Y-%m-%d %H:%M} UTC"
            else:
                self._windows[zone] = ""
        return self._windows[zone]

    def _over_budget(self, each: Waiting) -> str:
        limits = [self.rules.budgets.device_bytes_per_day, each.byte_budget]
        limit = min((limit for limit in limits if limit is not None), default=None)
        if limit is not None and self.by_device.get(each.device, 0) + each.bytes > limit:
            return "for the budget of bytes of the device"
        site = self.rules.budgets.site_bytes_per_day
        if each.site and site is not None and self.by_site.get(each.site, 0) + each.bytes > site:
            return f"for the budget of bytes of site '{each.site}'"
        return ""
