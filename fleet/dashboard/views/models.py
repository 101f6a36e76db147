"""Models and the list of their versions."""

from django.db.models import Count, Prefetch, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from fleet.accounts.roles import Role
from fleet.dashboard.access import asked, attempt, page, reader
from fleet.dashboard.forms.registry import ModelForm
from fleet.registry import services
from fleet.registry.models import Alias, AliasMove, Model, ModelVersion
from fleet.rollouts.models import Rollout


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every model with its newest version and aliases."""
    versions = ModelVersion.objects.order_by("-number").defer("facts", "signature")
    models = Model.objects.prefetch_related(
        Prefetch("versions", versions), Prefetch("aliases", Alias.objects.select_related("version"))
    )
    query = asked(request, "q")
    if query:
        models = models.filter(Q(slug__icontains=query) | Q(name__icontains=query))
    context = {"section": "models", "models": models, "query": query}
    return render(request, "dashboard/pages/models.html", context)


@page("GET", "POST", role=Role.ENGINEER)
def new(request: HttpRequest) -> HttpResponse:
    """Make a model, then upload its first version."""
    form = ModelForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        made = attempt(request, lambda: services.create_model(**data, user=reader(request)))
        if made:
            return redirect("dashboard:version-upload", made.slug)
    return render(request, "dashboard/pages/model_form.html", {"section": "models", "form": form})


@page()
def show(request: HttpRequest, slug: str) -> HttpResponse:
    """One model: versions, aliases with their history, where it went."""
    model = services.get_model(slug)
    versions = (
        model.versions.prefetch_related("aliases")
        .annotate(artifact_count=Count("artifacts"))
        .defer("signature")
        .order_by("-number")
    )
    moves = AliasMove.objects.filter(model=model).select_related("from_version", "to_version", "moved_by")
    context = {
        "section": "models",
        "model": model,
        "versions": versions,
        "moves": moves[:30],
        "rollouts": Rollout.objects.filter(version__model=model).select_related("version__model", "group")[
            :10
        ],
    }
    return render(request, "dashboard/pages/model.html", context)
