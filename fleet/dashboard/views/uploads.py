"""Uploads: of a model's version and of a dataset; what is refused is said exactly, beside the form."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from fleet.accounts.roles import Role
from fleet.dashboard.access import page, reader
from fleet.dashboard.forms.registry import DatasetForm, VersionForm
from fleet.errors import FleetError
from fleet.registry import services


@page("GET", "POST", role=Role.ENGINEER)
def version(request: HttpRequest, slug: str) -> HttpResponse:
    """Upload a version; its page then shows how the check goes."""
    model = services.get_model(slug)
    form = VersionForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            made = services.upload_version(
                model, data["model_files"], notes=data["notes"], user=reader(request)
            )
            return redirect("dashboard:version", model.slug, made.number)
        except FleetError as error:
            form.refusal = error
    context = {"section": "models", "form": form, "model": model, "limit": settings.UPLOAD_MAX_BYTES}
    return _page(request, context)


@page("GET", "POST", role=Role.ENGINEER)
def dataset(request: HttpRequest) -> HttpResponse:
    """Upload a dataset; its page then shows how the check goes."""
    form = DatasetForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = services.upload_dataset(
                form.cleaned_data["file"], form.cleaned_data["name"], user=reader(request)
            )
            return redirect("dashboard:dataset", made.pk)
        except FleetError as error:
            form.refusal = error
    context = {"section": "datasets", "form": form, "model": None, "limit": settings.UPLOAD_MAX_BYTES}
    return _page(request, context)


def _page(request: HttpRequest, context: dict[str, object]) -> HttpResponse:
    form = context["form"]
    refusal = getattr(form, "refusal", None)
    return render(request, "dashboard/pages/upload.html", context, status=refusal.status if refusal else 200)
