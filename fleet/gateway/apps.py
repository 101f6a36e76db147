"""App configuration. MQTT to the fleet and back."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """MQTT to the fleet and back."""

    name = "fleet.gateway"
    label = "gateway"
    default_auto_field = "django.db.models.BigAutoField"
