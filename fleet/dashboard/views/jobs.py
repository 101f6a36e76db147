"""Compression jobs."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django_tables2 import RequestConfig

from compression_jobs import services
from compression_jobs.models import Job
from fleet.accounts.roles import Role
from fleet.dashboard import candidates, spreadsheet
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.filters import JobFilter
from fleet.dashboard.forms.registry import JobForm
from fleet.dashboard.tables import JobTable
from fleet.errors import FleetError
from fleet.registry.models import Target


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every job."""
    jobs = Job.objects.select_related("version__model", "dataset").prefetch_related("targets")
    found = JobFilter(request.GET, queryset=jobs)
    table = JobTable(found.qs)
    RequestConfig(request, paginate={"per_page": 50}).configure(table)
    context = {"section": "jobs", "filter": found, "table": table, "any": Job.objects.exists()}
    return render(request, "dashboard/pages/jobs.html", context)


@page("GET", "POST", role=Role.ENGINEER)
def new(request: HttpRequest) -> HttpResponse:
    """Submit a job; what cannot work is refused beside the form."""
    form = JobForm(request.POST or None, initial=_suggested(request))
    if request.method == "POST" and form.is_valid():
        try:
            return redirect("dashboard:job", _submit(request, form.cleaned_data).pk)
        except FleetError as error:
            form.refusal = error
    context = {"section": "jobs", "form": form}
    return render(
        request, "dashboard/pages/job_form.html", context, status=form.refusal.status if form.refusal else 200
    )


def _suggested(request: HttpRequest) -> dict[str, Any]:
    with_devices = Target.objects.filter(devices__isnull=False).distinct().values_list("slug", flat=True)
    return {
        "version": request.GET.get("version"),
        "targets": request.GET.getlist("target") or list(with_devices),
        "min_accuracy": 0.9,
        "max_drop": 0.03,
    }


def _submit(request: HttpRequest, data: dict[str, Any]) -> Job:
    return services.submit(
        data["version"],
        data["dataset"],
        targets=[target.slug for target in data["targets"]],
        min_accuracy=data["min_accuracy"],
        max_drop=data["max_drop"],
        objective=data["objective"],
        seed=data["seed"],
        user=reader(request),
    )


@page()
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """Progress, the sentence of each target, and every candidate in a picture and a table."""
    job = services.get_job(pk)
    targets = list(job.targets.all())
    chosen = next(
        (t for t in targets if t.slug == request.GET.get("target")), targets[0] if targets else None
    )
    rows = candidates.of(job, chosen) if chosen else []
    chart = candidates.chart(job, chosen, rows) if chosen else None
    if chart and request.GET.get("csv"):
        return spreadsheet.answer(
            [chart.table.columns, *chart.table.rows], f"job-{pk}-{chosen.slug if chosen else ''}"
        )
    context = {
        "section": "jobs",
        "job": job,
        "targets": targets,
        "chosen": chosen,
        "candidates": rows,
        "chart": chart,
        "steps": candidates.steps(job),
        "results": [(target, job.results.get(target.slug)) for target in targets],
        "artifacts": candidates.artifacts(job),
    }
    return render(request, "dashboard/pages/job.html", context)


@page("POST", role=Role.ENGINEER)
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop it."""
    job = services.get_job(pk)
    attempt(request, lambda: services.cancel(job), f"Job {pk} stops; what it has published stays.")
    return redirect("dashboard:job", pk)
