"""What ran where and when: one query over all time."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Q, QuerySet

from fleet.errors import Refused
from fleet.inventory import services
from fleet.inventory.models import InstalledSpan


@dataclass(frozen=True)
class Question:
    """What is asked; empty means anything. A span counts when it touches the time from `since` to `until`."""

    device: str = ""
    group: str = ""
    model: str = ""
    version: int | None = None
    target: str = ""
    app: str = ""
    since: datetime | None = None
    until: datetime | None = None


def spans(question: Question) -> QuerySet[InstalledSpan]:
    """Every span of time in which an artifact was installed on a device, newest first."""
    if question.since and question.until and question.since > question.until:
        raise Refused("the time asked about ends before it begins", remedy="Swap `since` and `until`.")
    wanted = {
        "device__name": question.device,
        "artifact__version__model__slug": question.model,
        "artifact__version__number": question.version,
        "device__target__slug": question.target,
        "app": question.app,
    }
    found = InstalledSpan.objects.filter(**{name: value for name, value in wanted.items() if value})
    if question.group:
        found = found.filter(device__in=services.members(services.group_named(question.group)))
    if question.since:
        found = found.filter(Q(until=None) | Q(until__gt=question.since))
    if question.until:
        found = found.filter(since__lte=question.until)
    # A span may be empty, when two words of a device arrived at one moment.
    found = found.exclude(until=F("since"))
    return found.select_related("device__target", "artifact__version__model").order_by("-since", "-pk")
