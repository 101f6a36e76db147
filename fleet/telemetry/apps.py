"""App configuration. What happened on devices: reports, rollups, alerts."""

from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    """What happened on devices: reports, rollups, alerts."""

    name = "fleet.telemetry"
    label = "telemetry"
    default_auto_field = "django.db.models.BigAutoField"
