"""Every address: the pages, the API, health and metrics."""

from django.urls import include, path

from fleet.config.api import api, missing
from fleet.config.health import healthz
from fleet.config.metrics import metrics

urlpatterns = [
    path("api/v1/", api.urls),
    path("api/<path:rest>", missing),
    path("healthz", healthz, name="healthz"),
    path("metrics", metrics, name="metrics"),
    path("", include("fleet.dashboard.urls")),
]
