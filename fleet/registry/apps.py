"""App configuration. What can run: models, versions, datasets, targets, artifacts."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class RegistryConfig(AppConfig):
    """What can run: models, versions, datasets, targets, artifacts."""

    name = "fleet.registry"
    label = "registry"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Write the target presets whenever the database was migrated."""
        post_migrate.connect(_sync_targets, sender=self)


def _sync_targets(using: str, **kwargs: Any) -> None:
    from django.db import connections

    from fleet.registry.models import Target
    from fleet.registry.presets import sync_targets

    # After `migrate registry zero` there is no table to write to.
    if Target._meta.db_table in connections[using].introspection.table_names():
        sync_targets()
