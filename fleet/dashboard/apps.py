"""App configuration. Every page."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """Every page."""

    name = "fleet.dashboard"
    label = "dashboard"
    default_auto_field = "django.db.models.BigAutoField"
