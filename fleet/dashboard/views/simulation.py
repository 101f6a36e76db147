"""The page that plays a rollout thousands of times before it starts."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from fleet.dashboard import simulation_charts, spreadsheet, words
from fleet.dashboard.access import page, reader
from fleet.dashboard.forms.simulation import SimulationForm
from fleet.errors import FleetError, Forbidden
from fleet.inventory.models import DeviceGroup
from fleet.rollouts import experience, services, simulation, strategy


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
    fleet = experience.fleet_of(plan, now)
    truth = simulation.Truth(form.cleaned_data["failing"] / 100, own_verdict=form.cleaned_data["own_verdict"])
    found = simulation.simulate(plan, fleet, truth, rules=rules, rollouts=form.cleaned_data["rollouts"])
    outlook = experience.outlook(plan, rules, now)
    return {
        "plan": plan,
        "found": found,
        "headline": _headline(found, form.cleaned_data["failing"], plan.devices),
        "outlook": outlook,
        "charts": simulation_charts.of(found, plan.devices, outlook.power if outlook else []),
    }


def _headline(found: simulation.Simulated, failing: float, devices: int) -> str:
    stopped, held = found.stopped.mean(), (found.held & ~found.stopped).mean()
    return (
        f"A version that fails on {failing:g} % of devices is stopped in {words.share(stopped)} of rollouts, held for a "
        f"person in {words.share(held)}, and goes to everybody in {words.share(found.missed)}; "
        f"{found.exposed.mean():.0f} of {words.plural(devices, 'device')} run it in the mean."
    )
