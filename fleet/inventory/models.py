"""Where it can run: devices, what is installed on them, groups, enrolment tokens, commands and broker grants."""

from datetime import datetime, timedelta

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

from fleet.registry.models import Artifact, Target, slug_validator

id_validator = RegexValidator(
    r"^[A-Za-z0-9_-]{1,64}$", "Use letters, digits, hyphen and underscore, at most 64."
)


class DeviceGroup(models.Model):
    """A set of devices, chosen by hand or by a label rule."""

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    rule = models.CharField(
        max_length=500,
        blank=True,
        help_text="Label rule, such as `site=berlin and target=raspberry-pi-4`; empty: by hand.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    @property
    def is_dynamic(self) -> bool:
        """Whether a rule, not a hand-made list, says who belongs."""
        return bool(self.rule)


class Device(models.Model):
    """One enrolled device, as the server knows it from what the device itself says."""

    class State(models.TextChoices):
        """Whether the fleet counts on the device."""

        ACTIVE = "active"
        REVOKED = "revoked"
        RETIRED = "retired"

    name = models.CharField(max_length=64, unique=True, validators=[id_validator])
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="devices")
    labels = models.JSONField(default=dict, blank=True)
    groups = models.ManyToManyField(DeviceGroup, related_name="members", blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.ACTIVE)
    heartbeat_s = models.PositiveIntegerField(
        default=30, help_text="A device is overdue after three of these."
    )

    online = models.BooleanField(default=False)
    epoch = models.BigIntegerField(null=True, blank=True)
    past_epochs = models.JSONField(
        default=list, blank=True, help_text="Replaced epochs; they never count again."
    )
    session = models.BigIntegerField(default=0)
    boot = models.BigIntegerField(default=0)
    booted_at = models.DateTimeField(null=True, blank=True, help_text="UTC of this boot's 0 ms, from hello.")
    hello = models.JSONField(default=dict, blank=True, help_text="The last hello, whole.")
    hello_at = models.DateTimeField(null=True, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    enrolled_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def is_overdue(self, now: datetime) -> bool:
        """Whether nothing was heard for three heartbeats, although the device counts as active."""
        if self.last_seen_at is None:
            return False
        return now - self.last_seen_at > timedelta(seconds=3 * self.heartbeat_s)

    def presence_text(self, now: datetime) -> str:
        """Presence in words: never seen, in time, overdue, offline, revoked, retired."""
        if self.state != self.State.ACTIVE:
            return self.State(self.state).label.lower()
        if self.last_seen_at is None:
            return "never seen"
        if not self.online:
            return "offline"
        return "overdue" if self.is_overdue(now) else "in time"


class DeviceApp(models.Model):
    """What one app of a device runs, as the device says, and where its delivery stands."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="apps")
    app = models.CharField(max_length=64, default="main", validators=[id_validator])
    artifact = models.ForeignKey(
        Artifact, null=True, blank=True, on_delete=models.SET_NULL, related_name="installed_on"
    )
    artifact_sha256 = models.CharField(max_length=64, blank=True)
    last_sequence = models.BigIntegerField(default=0, help_text="The highest the device has accepted.")
    manifest_sha256 = models.CharField(
        max_length=64, blank=True, help_text="Of the manifest it accepted last."
    )
    delivery = models.CharField(max_length=64, blank=True, help_text="The delivery at work on the device.")
    delivery_state = models.CharField(max_length=16, blank=True)
    outcome = models.JSONField(default=dict, blank=True, help_text="Last end: delivery, state, reason.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["device", "app"], name="one_row_an_app")]


class InstalledSpan(models.Model):
    """What ran where, from when until when; `until` is empty for what runs now."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="spans")
    app = models.CharField(max_length=64)
    artifact = models.ForeignKey(Artifact, null=True, on_delete=models.SET_NULL, related_name="spans")
    artifact_sha256 = models.CharField(max_length=64)
    since = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-since"]
        indexes = [models.Index(fields=["artifact_sha256", "until"])]


class EnrolmentToken(models.Model):
    """A one-time (or n-times) token that lets a device enrol itself; only its SHA-256 is stored."""

    digest = models.CharField(max_length=64, unique=True)
    prefix = models.CharField(max_length=12)
    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    groups = models.ManyToManyField(DeviceGroup, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    uses_left = models.PositiveIntegerField(default=1)
    heartbeat_s = models.PositiveIntegerField(default=30, help_text="For the devices it enrols.")
    report_s = models.PositiveIntegerField(default=30, help_text="For the devices it enrols.")
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)


class BrokerGrant(models.Model):
    """Outbox: which generation of a device's secret the broker shall accept, or none."""

    device = models.OneToOneField(Device, on_delete=models.CASCADE, related_name="grant")
    generation = models.PositiveIntegerField(default=1)
    allowed = models.BooleanField(default=True)
    due = models.BooleanField(default=True, db_index=True)
    granted_at = models.DateTimeField(null=True, blank=True)


class Command(models.Model):
    """Outbox: one command to a device; sent again at every hello until answered or expired."""

    class State(models.TextChoices):
        """Where the command stands."""

        PENDING = "pending"
        SENT = "sent"
        ANSWERED = "answered"
        FAILED = "failed"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True)
    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="commands")
    app = models.CharField(max_length=64, default="main")
    name = models.CharField(max_length=32)
    args = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    due = models.BooleanField(default=True, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    expires_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["-created_at"]
