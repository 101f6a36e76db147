"""App configuration. Where it can run: devices, groups, enrolment."""

from django.apps import AppConfig


class InventoryConfig(AppConfig):
    """Where it can run: devices, groups, enrolment."""

    name = "fleet.inventory"
    label = "inventory"
    default_auto_field = "django.db.models.BigAutoField"
