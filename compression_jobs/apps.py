"""App configuration. Make it smaller: compression jobs and their candidates."""

from django.apps import AppConfig


class CompressionJobsConfig(AppConfig):
    """Make it smaller: compression jobs and their candidates."""

    name = "compression_jobs"
    label = "compression_jobs"
    default_auto_field = "django.db.models.BigAutoField"
