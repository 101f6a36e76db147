"""What happened on devices: reports as they came, rollups merged from them, alerts raised by them."""

from django.db import models

from fleet.inventory.models import Device
from fleet.registry.models import Artifact


class Window(models.Model):
    """What a report and a rollup have in common: counts and mergeable histograms of one span of time."""

    n = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    latency = models.JSONField(default=list, blank=True, help_text="Sparse histogram of microseconds.")
    labelled = models.BigIntegerField(default=0)
    correct = models.BigIntegerField(default=0)
    sum_abs_err = models.FloatField(null=True, blank=True)
    sum_sq_err = models.FloatField(null=True, blank=True)
    scores = models.JSONField(default=dict, blank=True)
    classes = models.JSONField(default=dict, blank=True)
    confidence = models.JSONField(default=list, blank=True)
    heap_free_min = models.BigIntegerField(null=True, blank=True)
    dropped = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class Report(Window):
    """One window of one device, kept once however often it arrives."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="reports")
    epoch = models.BigIntegerField()
    boot = models.BigIntegerField()
    sequence = models.BigIntegerField()
    app = models.CharField(max_length=64)
    artifact = models.ForeignKey(Artifact, null=True, on_delete=models.SET_NULL, related_name="reports")
    artifact_sha256 = models.CharField(max_length=64)
    slot = models.CharField(max_length=1, blank=True)
    phase = models.CharField(max_length=8)
    start_at = models.DateTimeField()
    end_at = models.DateTimeField()
    received_at = models.DateTimeField(auto_now_add=True)
    rolled_up = models.BooleanField(default=False)

    class Meta:
        ordering = ["-end_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["device", "epoch", "boot", "sequence"], name="a_report_counts_once"
            )
        ]
        indexes = [
            models.Index(fields=["device", "end_at"]),
            models.Index(fields=["artifact_sha256", "end_at"]),
            models.Index(
                fields=["rolled_up"], condition=models.Q(rolled_up=False), name="reports_to_roll_up"
            ),
        ]


class Rollup(Window):
    """Reports of one device, app, artifact and phase merged over a minute or an hour."""

    class Resolution(models.TextChoices):
        """Width of the bucket."""

        MINUTE = "minute"
        HOUR = "hour"

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="rollups")
    app = models.CharField(max_length=64)
    artifact = models.ForeignKey(Artifact, null=True, on_delete=models.SET_NULL, related_name="rollups")
    artifact_sha256 = models.CharField(max_length=64)
    phase = models.CharField(max_length=8)
    resolution = models.CharField(max_length=6, choices=Resolution)
    start_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["resolution", "start_at", "device", "app", "artifact_sha256", "phase"],
                name="one_rollup_a_bucket",
            )
        ]
        indexes = [models.Index(fields=["artifact_sha256", "resolution", "start_at"])]


class Alert(models.Model):
    """Something a person should look at, raised once and closed when it is over."""

    class Kind(models.TextChoices):
        """What it is about."""

        OVERDUE = "overdue"
        ACCURACY = "accuracy"
        ERRORS = "errors"
        DELIVERY = "delivery"

    kind = models.CharField(max_length=12, choices=Kind)
    device = models.ForeignKey(Device, null=True, on_delete=models.CASCADE, related_name="alerts")
    artifact = models.ForeignKey(Artifact, null=True, on_delete=models.CASCADE)
    sentence = models.TextField()
    evidence = models.JSONField(default=dict, blank=True)
    raised_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-raised_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "device", "artifact"],
                condition=models.Q(closed_at=None),
                name="one_open_alert_a_thing",
                nulls_distinct=False,
            )
        ]
