"""One search over the names of everything."""

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from fleet.dashboard.access import asked, page
from fleet.inventory.models import Device, DeviceGroup
from fleet.registry.models import Dataset, Model, Target
from fleet.rollouts.models import Rollout

MOST = 20

Hit = tuple[str, str, str]


@page()
def show(request: HttpRequest) -> HttpResponse:
    """Everything whose name contains the words."""
    text = asked(request, "q")
    context = {"search_text": text, "found": _found(text) if text else {}}
    return render(request, "dashboard/pages/search.html", context)


def _found(text: str) -> dict[str, list[Hit]]:
    named = Q(slug__icontains=text) | Q(name__icontains=text)
    rollouts = Q(version__model__slug__icontains=text) | Q(group__slug__icontains=text)
    every: dict[str, list[Hit]] = {
        "Models": [_hit("model", [m.slug], m.name, m.slug) for m in Model.objects.filter(named)[:MOST]],
        "Devices": [
            _hit("device", [d.name], d.name, d.target.slug)
            for d in Device.objects.filter(
                Q(name__icontains=text) | Q(labels__icontains=text)
            ).select_related("target")[:MOST]
        ],
        "Groups": [
            _hit("group", [g.slug], g.name, g.rule or "by hand")
            for g in DeviceGroup.objects.filter(named)[:MOST]
        ],
        "Rollouts": [
            _hit("rollout", [r.pk], str(r), r.state.replace("_", " "))
            for r in Rollout.objects.filter(rollouts).select_related("version__model", "group")[:MOST]
        ],
        "Datasets": [
            _hit("dataset", [d.pk], d.name, d.state)
            for d in Dataset.objects.filter(name__icontains=text)[:MOST]
        ],
        "Targets": [
            (f"{reverse('dashboard:targets')}#{t.slug}", t.name, t.slug)
            for t in Target.objects.filter(named)[:MOST]
        ],
    }
    return {kind: hits for kind, hits in every.items() if hits}


def _hit(place: str, args: list[Any], title: str, note: str) -> Hit:
    return reverse(f"dashboard:{place}", args=args), title, note
