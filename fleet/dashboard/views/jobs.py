"""Compression jobs."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django_tables2 import RequestConfig

from compression_jobs import services
from compression_jobs.models import Candidate, Job
from fleet.accounts.roles import Role
from fleet.dashboard import candidates, spreadsheet
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.filters import JobFilter
from fleet.dashboard.forms.recipe import RecipeEditor
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
    """Submit a job; what cannot work is refused beside the form, and buttons of the recipe only change the form."""
    if request.method != "POST":
        like = _like(request)
        return _form(
            request, JobForm(initial=_suggested(request, like)), RecipeEditor.of(like.recipe if like else [])
        )
    editor = RecipeEditor.sent(request.POST)
    if "edit" in request.POST:
        changed = editor.edited(request.POST["edit"], request.POST.get("added", ""))
        return _form(request, JobForm(initial=_typed(request)), changed)
    form = JobForm(request.POST, searches=not editor.steps)
    if form.is_valid() & editor.is_valid():
        try:
            return redirect("dashboard:job", _submit(request, form, editor.recipe()).pk)
        except FleetError as error:
            form.refusal = error
    return _form(request, form, editor)


def _form(request: HttpRequest, form: JobForm, editor: RecipeEditor) -> HttpResponse:
    context = {"section": "jobs", "form": form, "editor": editor}
    status = form.refusal.status if form.refusal else 200
    return render(request, "dashboard/pages/job_form.html", context, status=status)


def _like(request: HttpRequest) -> Candidate | None:
    """The candidate whose recipe somebody wants to change."""
    asked = request.GET.get("like", "")
    if not (asked.isascii() and asked.isdigit() and len(asked) < 19):
        return None
    return Candidate.objects.select_related("job", "target").filter(pk=asked).first()


def _suggested(request: HttpRequest, like: Candidate | None) -> dict[str, Any]:
    if like is not None:
        job = like.job
        return {
            "version": job.version_id,
            "dataset": job.dataset_id,
            "targets": [like.target.slug],
            **job.goals,
            **job.effort,
            "seed": job.seed,
        }
    with_devices = Target.objects.filter(devices__isnull=False).distinct().values_list("slug", flat=True)
    return {
        "version": request.GET.get("version"),
        "targets": request.GET.getlist("target") or list(with_devices),
        "min_accuracy": 0.9,
        "max_drop": 0.03,
    }


def _typed(request: HttpRequest) -> dict[str, Any]:
    """What stands in the form, right or wrong, to be shown again beside the changed recipe."""
    return {**request.POST.dict(), "targets": request.POST.getlist("targets")}


def _submit(request: HttpRequest, form: JobForm, recipe: list[dict[str, Any]] | None) -> Job:
    data = form.cleaned_data
    return services.submit(
        data["version"],
        data["dataset"],
        targets=[target.slug for target in data["targets"]],
        min_accuracy=data["min_accuracy"],
        max_drop=data["max_drop"],
        objective=data["objective"],
        recipe=recipe,
        effort=form.effort,
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
        "recipe": candidates.recipe_words(job.recipe or []),
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
