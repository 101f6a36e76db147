"""App configuration of the project itself: loads Celery's app and the system checks in every process."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    """The project: settings, URLs, API, Celery, checks, health."""

    name = "fleet.config"
    label = "config"

    def ready(self) -> None:
        """Make Celery's app the current one, so that `.delay()` finds the broker in every process."""
        from fleet.config import alive, celery, checks  # noqa: F401  (both register themselves when imported)
