"""What ran where and when."""

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from fleet.dashboard.access import asked, page
from fleet.dashboard.forms.history import HistoryForm
from fleet.errors import FleetError
from fleet.inventory import history

A_PAGE = 100


@page()
def show(request: HttpRequest) -> HttpResponse:
    """The question as a form, the answer as a table."""
    form = HistoryForm(request.GET)
    found: Any = []
    if form.is_valid():
        try:
            found = history.spans(form.question())
        except FleetError as error:
            form.refusal = error
    pages = Paginator(found, A_PAGE)
    context = {
        "section": "history",
        "form": form,
        "spans": pages.get_page(asked(request, "page")),
        "used": any(request.GET.values()),
    }
    return render(request, "dashboard/pages/history.html", context)
