"""The wizard of a rollout: a form, the dry run exactly as planning gives it, and the start."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.dashboard.access import page, reader
from fleet.dashboard.forms.rollout import RolloutForm
from fleet.errors import FleetError, Forbidden
from fleet.inventory.models import DeviceGroup
from fleet.registry.models import Artifact
from fleet.rollouts import experience, services, strategy
from fleet.rollouts.planning import Plan

# Devices named beside one answer; the template cuts there.
SHOWN_NAMES = 60


@page("GET", "POST", role=Role.OPERATOR)
def show(request: HttpRequest) -> HttpResponse:
    """GET with fields shows the dry run; POST makes the rollout, and `start` starts it."""
    form = RolloutForm(
        request.POST or (request.GET if "dry" in request.GET else None), initial=_suggested(request)
    )
    plan = None
    if form.is_bound and form.is_valid():
        try:
            if request.method == "POST":
                return redirect("dashboard:rollout", _make(request, form))
            plan = services.preview(reader(request), **_order(form))
        except Forbidden:
            raise
        except FleetError as error:
            form.refusal = error
    context = {
        "section": "rollouts",
        "form": form,
        "plan": plan,
        "outlook": experience.outlook(plan, strategy.read(form.rules()), timezone.now()) if plan else None,
        "waves": _waves(plan) if plan else [],
        "reasons": _reasons(plan) if plan else [],
        "ready": form.fields["version"].queryset.exists() and DeviceGroup.objects.exists(),  # type: ignore[attr-defined]
    }
    return render(
        request,
        "dashboard/pages/wizard.html",
        context,
        status=form.refusal.status if form.refusal and request.method == "POST" else 200,
    )


def _suggested(request: HttpRequest) -> dict[str, Any]:
    return {name: request.GET[name] for name in ("version", "group") if name in request.GET}


def _order(form: RolloutForm) -> dict[str, Any]:
    data = form.cleaned_data
    return {"version": data["version"], "group": data["group"], "app": data["app"], "rules": form.rules()}


def _make(request: HttpRequest, form: RolloutForm) -> int:
    user = reader(request)
    rollout = services.create(user, **_order(form), start_at=form.cleaned_data["start_at"])
    if "draft" not in request.POST:
        services.start(user, rollout)
    return rollout.pk


def _waves(plan: Plan) -> list[dict[str, Any]]:
    """Each wave with its devices, and the bytes of each artifact."""
    pks = {share.artifact for wave in plan.waves for share in wave}
    artifacts = Artifact.objects.in_bulk(pks)
    return [
        {
            "shares": [(share, artifacts.get(share.artifact)) for share in wave],
            "bytes": sum(share.transport_bytes for share in wave),
        }
        for wave in plan.waves
    ]


def _reasons(plan: Plan) -> list[dict[str, Any]]:
    """Why these artifacts: each answer once, with the devices it is about."""
    found: dict[str, dict[str, Any]] = {}
    artifacts = Artifact.objects.select_related("target").in_bulk({share.artifact for share in plan.shares})
    for share in plan.shares:
        alike = json.dumps([share.artifact, share.why])
        answer = {"artifact": artifacts[share.artifact], "why": share.why, "devices": []}
        found.setdefault(alike, answer)["devices"].append(share.device)
    return [{**each, "more": len(each["devices"]) - SHOWN_NAMES} for each in found.values()]
