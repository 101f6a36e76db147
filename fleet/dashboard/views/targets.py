"""Targets: classes of hardware and what is left on them."""

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from fleet.dashboard.access import page
from fleet.inventory.models import Device
from fleet.registry.models import Target


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every target with its subtraction and how many devices are of it."""
    active = Q(devices__state=Device.State.ACTIVE)
    targets = Target.objects.annotate(device_count=Count("devices", filter=active)).order_by(
        "runtime", "slug"
    )
    return render(request, "dashboard/pages/targets.html", {"section": "targets", "targets": targets})
