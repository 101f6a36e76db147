"""App configuration. What can run: models, versions, datasets, targets, artifacts."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

# By model, the columns that workers write or that are too long to be read in a log.
AUDITED = {
    "Model": [],
    "ModelVersion": ["facts", "signature", "problems", "lease_token", "lease_until", "attempt"],
    "Alias": [],
    "Dataset": ["facts", "problems", "lease_token", "lease_until", "attempt"],
    "Target": ["subtraction"],
    "Artifact": ["signature", "measurements", "lineage"],
}


class RegistryConfig(AppConfig):
    """What can run: models, versions, datasets, targets, artifacts."""

    name = "fleet.registry"
    label = "registry"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Write the target presets whenever the database was migrated; keep who changed what."""
        from auditlog.registry import auditlog

        post_migrate.connect(_sync_targets, sender=self)
        for name, unlogged in AUDITED.items():
            auditlog.register(self.get_model(name), exclude_fields=unlogged)


def _sync_targets(using: str, **kwargs: Any) -> None:
    from django.db import connections

    from fleet.registry.models import Target
    from fleet.registry.presets import sync_targets

    # After `migrate registry zero` there is no table to write to.
    if Target._meta.db_table in connections[using].introspection.table_names():
        sync_targets()
