"""The list of devices."""

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django_tables2 import RequestConfig

from fleet.dashboard import spreadsheet
from fleet.dashboard.access import page
from fleet.dashboard.filters import DeviceFilter
from fleet.dashboard.tables import DeviceTable
from fleet.inventory.models import Device

PER_PAGE = 50


def devices() -> QuerySet[Device]:
    """Every device with what a row shows, in a constant number of queries."""
    return Device.objects.select_related("target").prefetch_related(
        "groups", "apps__artifact__version__model"
    )


@page()
def index(request: HttpRequest) -> HttpResponse:
    """The table, or the same rows as CSV."""
    found = DeviceFilter(request.GET, queryset=devices())
    table = DeviceTable(found.qs)
    if request.GET.get("csv"):
        RequestConfig(request, paginate=False).configure(table)
        return spreadsheet.answer(table.as_values(), "devices")
    RequestConfig(request, paginate={"per_page": PER_PAGE}).configure(table)
    context = {"section": "devices", "filter": found, "table": table, "any": Device.objects.exists()}
    return render(request, "dashboard/pages/devices.html", context)
