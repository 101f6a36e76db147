"""Datasets."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django_tables2 import RequestConfig

from fleet.dashboard.access import page
from fleet.dashboard.tables import DatasetTable
from fleet.registry import services
from fleet.registry.models import Dataset


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every dataset."""
    table = DatasetTable(Dataset.objects.all())
    RequestConfig(request, paginate={"per_page": 50}).configure(table)
    context = {"section": "datasets", "table": table, "any": Dataset.objects.exists()}
    return render(request, "dashboard/pages/datasets.html", context)


@page()
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """One dataset: what the check found, and the jobs that used it."""
    dataset = services.get_dataset(pk)
    counts, names = dataset.facts.get("label_counts") or [], dataset.facts.get("class_names") or []
    context = {
        "section": "datasets",
        "dataset": dataset,
        "rows": dataset.facts.get("rows") or {},
        "label_counts": [(names[at] if at < len(names) else at, number) for at, number in enumerate(counts)],
        "jobs": dataset.jobs.select_related("version__model")[:10],
    }
    return render(request, "dashboard/pages/dataset.html", context)
