"""Who is told how rollouts and experiments go."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from fleet.accounts.roles import Role, require
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.forms.hook import HookForm
from fleet.rollouts import notices, webhooks
from fleet.rollouts.models import Hook, Notice

SHOWN = 50


@page("GET", "POST")
def show(request: HttpRequest) -> HttpResponse:
    """The addresses and what was told; POST adds an address."""
    user = reader(request)
    require(user, Role.ADMIN)
    form = HookForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        if attempt(
            request, lambda: notices.add_hook(user, data["kind"], data["address"]), "It is told from now on."
        ):
            return redirect("dashboard:notifications")
    hooks = [
        (hook, webhooks.secret(hook) if hook.kind == Hook.Kind.WEBHOOK else "") for hook in Hook.objects.all()
    ]
    context = {
        "section": "notifications",
        "form": form,
        "hooks": hooks,
        "notices": Notice.objects.select_related("hook")[:SHOWN],
    }
    answer = render(request, "dashboard/pages/notifications.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


@page("POST", role=Role.ADMIN)
def remove(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Tell an address nothing more."""
    attempt(request, lambda: notices.remove_hook(reader(request), pk), "It is told nothing more.")
    return redirect("dashboard:notifications")


@page("POST", role=Role.ADMIN)
def try_out(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Send a test message."""
    attempt(request, lambda: notices.try_out(reader(request), pk), "A test message is on its way.")
    return redirect("dashboard:notifications")
