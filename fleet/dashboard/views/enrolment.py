"""How devices join: tokens, each shown once with the command to run."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from fleet.accounts.roles import Role, require
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.forms.account import EnrolmentForm
from fleet.inventory import enrolment
from fleet.inventory.models import EnrolmentToken

SHOWN = 50


@page("GET", "POST")
def show(request: HttpRequest) -> HttpResponse:
    """The valid tokens; POST makes one, whose text is shown in the answer and never again."""
    user = reader(request)
    require(user, Role.ADMIN)
    now = timezone.now()
    form, made = EnrolmentForm(request.POST or None), None
    if request.method == "POST" and form.is_valid():
        made = attempt(request, lambda: enrolment.create_token(user, order(form.cleaned_data), now))
        form = EnrolmentForm() if made else form
    valid = EnrolmentToken.objects.filter(uses_left__gt=0, expires_at__gt=now)
    context = {
        "section": "enrolment",
        "form": form,
        "made": made[0] if made else None,
        "text": made[1] if made else None,
        "server": settings.PUBLIC_URL,
        "tokens": valid.select_related("target", "created_by")
        .prefetch_related("groups")
        .order_by("-created_at")[:SHOWN],
    }
    answer = render(request, "dashboard/pages/enrolment.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


def order(data: dict[str, Any]) -> enrolment.TokenOrder:
    """What the form asks for, as the service takes it."""
    return enrolment.TokenOrder(
        target=data["target"].slug,
        groups=[group.slug for group in data["groups"]],
        labels=data["labels"],
        uses=data["uses"],
        expires_in_s=int(data["expires_in_s"]),
    )
