"""Experiments: the list, a new one with its dry run, and the live page of one."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.forms.experiment import ExperimentForm
from fleet.errors import FleetError, Forbidden
from fleet.inventory.models import DeviceGroup
from fleet.rollouts import experiments, observing, terms
from fleet.rollouts.models import Experiment, Pair

SHOWN = 100
SHOWN_PAIRS = 300


@page()
def index(request: HttpRequest) -> HttpResponse:
    """The newest first."""
    found = Experiment.objects.select_related("version_a__model", "version_b__model", "group")[:SHOWN]
    context = {"section": "rollouts", "experiments": found}
    return render(request, "dashboard/pages/experiments.html", context)


@page("GET", "POST", role=Role.OPERATOR)
def new(request: HttpRequest) -> HttpResponse:
    """GET with fields shows what it could show; POST starts it."""
    form = ExperimentForm(request.POST or (request.GET if "dry" in request.GET else None))
    preview = None
    if form.is_bound and form.is_valid():
        try:
            order = experiments.order_of(**form.order())
            if request.method == "POST":
                made = experiments.create(reader(request), order, timezone.now())
                return redirect("dashboard:experiment", made.pk)
            preview = experiments.preview(reader(request), order)
        except Forbidden:
            raise
        except FleetError as error:
            form.refusal = error
    context = {
        "section": "rollouts",
        "form": form,
        "preview": preview,
        "ready": form.fields["version_a"].queryset.exists() and DeviceGroup.objects.exists(),  # type: ignore[attr-defined]
    }
    refused = form.refusal is not None and request.method == "POST"
    status = form.refusal.status if form.refusal and refused else 200
    return render(request, "dashboard/pages/experiment_form.html", context, status=status)


@page()
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """The live page: what the pairs say, and who decides."""
    experiment = experiments.by_id(pk)
    pairs = experiment.pairs.select_related("device_a", "device_b")
    context = {
        "section": "rollouts",
        "experiment": experiment,
        "terms": terms.read(experiment.terms),
        "sides": _sides(experiment),
        "gap": observing.gap_in_words(experiment),
        "counted": pairs.filter(state=Pair.State.COUNTED).count(),
        "total": pairs.count(),
        "pairs": pairs[:SHOWN_PAIRS],
        "verbs": experiments.possible_verbs(experiment),
    }
    return render(request, "dashboard/pages/experiment.html", context)


@page("POST", role=Role.OPERATOR)
def act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Promote one version, or stop."""
    experiment, note = experiments.by_id(pk), request.POST.get("reason", "")
    user, now = reader(request), timezone.now()
    if verb in ("promote-a", "promote-b"):
        side = verb[-1]
        attempt(request, lambda: experiments.promote(user, experiment, side, now, note=note), "Promoted.")
    elif verb == "stop":
        attempt(request, lambda: experiments.stop(user, experiment, "keep", now, note=note), "Stopped.")
    elif verb == "revert":
        attempt(request, lambda: experiments.stop(user, experiment, "revert", now, note=note), "Going back.")
    else:
        raise Http404
    return redirect("dashboard:experiment", pk)


def _sides(experiment: Experiment) -> list[dict[str, Any]]:
    """Each half: its version, its rollout if it needed one, and the evidence for it."""
    rollouts = {rollout.side: rollout for rollout in experiment.rollouts.all()}
    return [
        {
            "side": side,
            "version": getattr(experiment, f"version_{side}"),
            "rollout": rollouts.get(side),
            "evidence": experiment.finding.get(f"for_{side}"),
            "devices": experiment.pairs.filter(**{f"device_{side}__isnull": False}).count(),
        }
        for side in experiments.SIDES
    ]
