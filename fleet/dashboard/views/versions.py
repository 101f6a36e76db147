"""One version, its artifacts, and their downloads."""

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.forms.registry import AliasForm
from fleet.dashboard.matrix import Row, matrix
from fleet.errors import NotFound
from fleet.inventory.models import DeviceApp
from fleet.registry import downloads, services
from fleet.registry.models import AliasMove, CheckState, ModelVersion
from fleet.rollouts import recalls
from fleet.telemetry.models import Rollup


@page()
def show(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Facts, signature, operators, the matrix of artifacts, aliases, jobs."""
    version = services.get_version(slug, number)
    rows, missing = matrix(version)
    operators = sorted((version.facts.get("operators") or {}).items(), key=lambda pair: -pair[1])
    context = {
        "section": "models",
        "version": version,
        "matrix": rows,
        "missing": missing,
        "operators": operators,
        "most": operators[0][1] if operators else 1,
        "aliases": version.aliases.all(),
        "moves": _moves(version),
        "jobs": version.jobs.prefetch_related("targets").select_related("dataset")[:10],
        "devices": DeviceApp.objects.filter(artifact__version=version).count(),
        "alias_form": AliasForm(),
        "still_runs": recalls.still_runs(version) if version.recalled_at else [],
    }
    return render(request, "dashboard/pages/version.html", context)


def _moves(version: ModelVersion) -> list[AliasMove]:
    moves = AliasMove.objects.filter(model=version.model).select_related(
        "from_version", "to_version", "moved_by"
    )
    return [move for move in moves[:100] if version.pk in (move.from_version_id, move.to_version_id)][:20]


@page("POST", role=Role.ENGINEER)
def move_alias(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Let an alias name this version."""
    version = services.get_version(slug, number)
    form = AliasForm(request.POST)
    name = str(request.POST.get("name", ""))[:63].strip()
    reason = form.cleaned_data.get("reason", "") if form.is_valid() else ""
    attempt(
        request,
        lambda: services.move_alias(version.model, name, version, user=reader(request), reason=reason),
        f"{name} now names version {number}.",
    )
    return redirect("dashboard:version", slug, number)


@page("POST")
def recall(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Let no device run it any more; whose role it takes the service knows."""
    version = services.get_version(slug, number)
    reason = str(request.POST.get("reason", ""))[:2000]
    attempt(
        request,
        lambda: recalls.recall(reader(request), version, reason=reason, now=timezone.now()),
        f"Version {number} is recalled; devices that run it go back.",
    )
    return redirect("dashboard:version", slug, number)


@page()
def download(request: HttpRequest, slug: str, number: int) -> HttpResponseBase:
    """The stored, self-contained file."""
    version = services.get_version(slug, number)
    if version.state != CheckState.READY:
        raise NotFound(f"{version} is {version.state} and has no file to download")
    return downloads.respond(request, version.sha256, version.download_name)


@page()
def artifact(request: HttpRequest, pk: int) -> HttpResponse:
    """One artifact: what was measured, where it runs, where it comes from."""
    found = services.get_artifact(pk)
    context = {
        "section": "models",
        "artifact": found,
        "row": Row(found.target, found, 0),
        "devices": DeviceApp.objects.filter(artifact=found)
        .select_related("device")
        .order_by("device__name")[:50],
        "reported": Rollup.objects.filter(artifact=found).exists(),
    }
    return render(request, "dashboard/pages/artifact.html", context)


@page()
def download_artifact(request: HttpRequest, pk: int) -> HttpResponseBase:
    """The artifact's file."""
    found = services.get_artifact(pk)
    return downloads.respond(request, found.sha256, found.download_name)
