"""App configuration. Who may do it: roles and API tokens."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Who may do it: roles and API tokens."""

    name = "fleet.accounts"
    label = "accounts"
    default_auto_field = "django.db.models.BigAutoField"
