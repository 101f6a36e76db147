"""App configuration. Who may do it: roles and API tokens."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AccountsConfig(AppConfig):
    """Who may do it: roles and API tokens."""

    name = "fleet.accounts"
    label = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Make the groups of the roles whenever the database was migrated; keep who changed what."""
        from auditlog.registry import auditlog
        from django.contrib.auth import get_user_model

        post_migrate.connect(_make_roles, sender=self)
        auditlog.register(self.get_model("ApiToken"), exclude_fields=["digest", "last_used_at"])
        auditlog.register(get_user_model(), exclude_fields=["password", "last_login"], m2m_fields={"groups"})


def _make_roles(using: str, **kwargs: Any) -> None:
    from django.contrib.auth.models import Group
    from django.db import connections

    from fleet.accounts.roles import ensure_groups

    # A partial migration (`migrate accounts zero`) may leave no table of groups to write to.
    if Group._meta.db_table in connections[using].introspection.table_names():
        ensure_groups()
