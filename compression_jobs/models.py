"""Make it smaller: jobs for several targets, and every candidate they measured."""

from django.conf import settings
from django.db import models

from fleet.registry.models import Artifact, Dataset, ModelVersion, Target


class Job(models.Model):
    """One run of a recipe, or of goals for several targets."""

    class State(models.TextChoices):
        """Design, section 6."""

        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ENDS = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
    WAITING = (State.QUEUED, State.RUNNING)
    MAX_ATTEMPTS = 3

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="jobs")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="jobs")
    targets = models.ManyToManyField(Target, related_name="jobs")
    goals = models.JSONField(default=dict, help_text="min_accuracy, max_drop, objective.")
    recipe = models.JSONField(
        null=True, blank=True, help_text="Steps; empty: the search makes recipes from the goals."
    )
    effort = models.JSONField(
        default=dict,
        blank=True,
        help_text="What a search may spend: train_steps, candidates, max_seconds; empty: the defaults.",
    )
    seed = models.BigIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    reason = models.TextField(blank=True)
    problems = models.JSONField(default=list, blank=True)
    progress = models.JSONField(default=dict, blank=True, help_text="step, done, total, message, target.")
    results = models.JSONField(
        default=dict, blank=True, help_text="By target: met, shown, sentence, binding."
    )
    sensitivity = models.JSONField(
        default=dict,
        blank=True,
        help_text="What each layer can spare: n, split, layers, or the reason why not.",
    )
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of all that decides the result.")
    cancel_requested = models.BooleanField(default=False)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    queued_at = models.DateTimeField(help_text="When it was last handed to the queue.")
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["fingerprint"],
                condition=models.Q(state__in=["queued", "running"]),
                name="a_job_waits_once",
            )
        ]

    def __str__(self) -> str:
        return f"job {self.pk}"

    @property
    def is_over(self) -> bool:
        """Whether the job reached an end."""
        return self.state in self.ENDS


class Candidate(models.Model):
    """One measured intermediate or final model of a job."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="candidates")
    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    key = models.CharField(
        max_length=100, help_text="Its id within the job; written once however often it is retried."
    )
    recipe = models.JSONField(default=list)
    sha256 = models.CharField(max_length=64)
    format = models.CharField(max_length=10)
    bytes = models.BigIntegerField()
    transport_bytes = models.BigIntegerField(null=True)
    parameters = models.BigIntegerField(null=True)
    macs = models.BigIntegerField(null=True)
    peak_ram_bytes = models.BigIntegerField(null=True)
    measurements = models.JSONField(default=dict, help_text="The pipeline's Candidate, whole.")
    fits = models.BooleanField(default=False)
    on_front = models.BooleanField(default=False)
    rejected = models.TextField(blank=True, help_text="Why it is not the winner; empty for the winner.")
    artifact = models.ForeignKey(Artifact, null=True, on_delete=models.SET_NULL, related_name="candidates")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["job", "target", "id"]
        constraints = [
            models.UniqueConstraint(fields=["job", "target", "key"], name="a_candidate_is_kept_once")
        ]
