"""The page that plays a rollout thousands of times before it starts."""

from dataclasses import replace
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from fleet.dashboard import simulation_charts, spreadsheet, words
from fleet.dashboard.access import page, reader
from fleet.dashboard.forms.simulation import SimulationForm
from fleet.errors import FleetError, Forbidden
from fleet.inventory.models import DeviceGroup
from fleet.rollouts import experience, forecast, imagined, services, simulation, strategy


@page()
def show(request: HttpRequest) -> HttpResponse:
    """A form; with fields, what became of the simulated rollouts; `csv` gives the values of one chart."""
    form = SimulationForm(request.GET if "dry" in request.GET else None)
    context: dict[str, Any] = {
        "section": "rollouts",
        "form": form,
        "ready": form.fields["version"].queryset.exists() and DeviceGroup.objects.exists(),  # type: ignore[attr-defined]
    }
    if form.is_bound and form.is_valid():
        try:
            context |= _played(request, form)
        except Forbidden:
            raise
        except FleetError as error:
            form.refusal = error
    wanted = context.get("charts", {}).get(request.GET.get("csv", ""))
    if wanted:
        return spreadsheet.answer(
            [wanted.table.columns, *wanted.table.rows], f"simulation-{request.GET['csv']}"
        )
    return render(request, "dashboard/pages/simulation.html", context)


def _played(request: HttpRequest, form: SimulationForm) -> dict[str, Any]:
    rules = strategy.read(form.rules())
    plan = services.preview(reader(request), **form.order())
    now = timezone.now()
    fleet = replace(experience.fleet_of(plan, now), answer_s=form.answer_seconds())
    truth, rollouts = form.truth(), form.cleaned_data["rollouts"]
    found = simulation.simulate(plan, fleet, truth, rules=rules, rollouts=rollouts)
    good = simulation.simulate(
        plan, fleet, imagined.Truth(rules.p0, season=truth.season), rules=rules, rollouts=rollouts
    )
    outlook = experience.outlook(plan, rules, now)
    return {
        "plan": plan,
        "found": found,
        "headline": _headline(found, truth, plan.devices),
        "good": (
            f"A good version, one that fails on {words.share(rules.p0)} of devices, is stopped in "
            f"{words.share(good.stopped.mean())} of {good.n} rollouts; {words.share(rules.alpha)} is allowed."
        ),
        "outlook": outlook,
        "assumed": simulation.assumptions(plan, fleet, truth, rules),
        "charts": simulation_charts.of(found, plan.devices, outlook),
    }


def _headline(found: simulation.Simulated, truth: imagined.Truth, devices: int) -> str:
    stopped, held = found.stopped.mean(), (found.held & ~found.stopped).mean()
    parts = [f"fails on {words.share(truth.failing)} of devices"]
    parts += [f"is {forecast.regression_in_words(*each)}" for each in truth.worse.items()]
    return (
        f"A version that {' and '.join(parts)} is stopped in {words.share(stopped)} of rollouts, held for a "
        f"person in {words.share(held)}, and goes to everybody in {words.share(found.missed)}; "
        f"{found.exposed.mean():.0f} of {words.plural(devices, 'device')} run it in the mean."
    )
