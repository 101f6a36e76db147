"""API tokens: how programs say who they are. Roles are Django groups (see roles.py)."""

from datetime import datetime

from django.conf import settings
from django.db import models


class ApiToken(models.Model):
    """One token of one user; only its SHA-256 is stored, the text is shown once."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(
        max_length=12, help_text="First characters, so that a person can tell tokens apart."
    )
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def is_valid(self, now: datetime) -> bool:
        """Whether the token may be used at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
