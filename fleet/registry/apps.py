"""App configuration. What can run: models, versions, datasets, targets, artifacts."""

from django.apps import AppConfig


class RegistryConfig(AppConfig):
    """What can run: models, versions, datasets, targets, artifacts."""

    name = "fleet.registry"
    label = "registry"
    default_auto_field = "django.db.models.BigAutoField"
