"""The first page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from fleet.dashboard import overview
from fleet.dashboard.access import page


@page()
def show(request: HttpRequest) -> HttpResponse:
    """The fleet, what needs a person, and what is at work."""
    now = timezone.now()
    tiles, presence, left_out = overview.fleet(now)
    jobs, rollouts = overview.running_jobs(), overview.running_rollouts()
    context = {
        "section": "overview",
        "tiles": tiles,
        "presence": presence,
        "left_out": left_out,
        "devices": sum(presence.values()),
        "needs": overview.needs(now),
        "jobs": jobs,
        "rollouts": rollouts,
        "at_work": len(jobs) + len(rollouts),
        "figures": overview.figures(),
    }
    return render(request, "dashboard/pages/overview.html", context)
