"""Every address: the pages, the API, health and metrics."""

from importlib.util import find_spec

from django.urls import include, path

from fleet.config.api import api, missing
from fleet.config.health import healthz
from fleet.config.metrics import metrics

urlpatterns = [
    path("api/v1/", api.urls),
    path("api/<path:rest>", missing),
    path("healthz", healthz, name="healthz"),
    path("metrics", metrics, name="metrics"),
]
if find_spec("fleet.dashboard.urls"):
    urlpatterns.append(path("", include("fleet.dashboard.urls")))
