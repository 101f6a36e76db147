"""App configuration. Who gets it and when: rollouts, waves, deliveries, intents."""

from django.apps import AppConfig


class RolloutsConfig(AppConfig):
    """Who gets it and when: rollouts, waves, deliveries, intents."""

    name = "fleet.rollouts"
    label = "rollouts"
    default_auto_field = "django.db.models.BigAutoField"
