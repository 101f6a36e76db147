"""What can run: models, versions, aliases, datasets, targets, artifacts, and the blobs they are made of."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

slug_validator = RegexValidator(r"^[a-z0-9][a-z0-9-]{0,62}$", "Use lower-case letters, digits and hyphens.")


class CheckState(models.TextChoices):
    """States of an upload while the server looks at it."""

    CHECKING = "checking"
    READY = "ready"
    REFUSED = "refused"


class Checked(models.Model):
    """What uploads have in common: a worker checks them under a lease, and they end ready or refused."""

    State = CheckState

    state = models.CharField(max_length=10, choices=CheckState, default=CheckState.CHECKING)
    reason = models.TextField(blank=True, help_text="Why it was refused, and the way out.")
    problems = models.JSONField(default=list, blank=True)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True, help_text="Until then a worker is at it.")
    attempt = models.PositiveIntegerField(default=0)
    checked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


class Blob(models.Model):
    """One content-addressed file in storage; it goes when no row names its SHA-256 any more."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    bytes = models.BigIntegerField()
    stored_at = models.DateTimeField(
        db_index=True, help_text="When it was last stored, again or for the first time."
    )
    deleting_since = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.sha256


class Model(models.Model):
    """A named task, such as `digits` or `keyword-spotting`."""

    class Task(models.TextChoices):
        """What the outputs mean."""

        CLASSIFICATION = "classification"
        REGRESSION = "regression"
        RECONSTRUCTION = "reconstruction"

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    task = models.CharField(max_length=20, choices=Task, default=Task.CLASSIFICATION)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class ModelVersion(Checked):
    """One immutable upload of a model, numbered 1, 2, 3 within it."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    format = models.CharField(max_length=10, default="onnx")
    filename = models.CharField(max_length=255)
    sha256 = models.CharField(
        max_length=64, blank=True, db_index=True, help_text="Of the stored, self-contained file."
    )
    upload_sha256 = models.CharField(max_length=64, db_index=True, help_text="Of the files as uploaded.")
    bytes = models.BigIntegerField(default=0)
    facts = models.JSONField(default=dict, blank=True)
    signature = models.JSONField(default=dict, blank=True)
    notes = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    recalled_at = models.DateTimeField(null=True, blank=True)
    recall_reason = models.TextField(blank=True, help_text="Why no device may run it any more.")
    recalled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["model", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="one_number_a_version"),
            models.UniqueConstraint(
                fields=["model", "upload_sha256"],
                condition=~models.Q(state=CheckState.REFUSED),
                name="a_model_has_an_upload_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model.slug} v{self.number}"

    @property
    def download_name(self) -> str:
        """What its file is called when somebody downloads it."""
        return f"{self.model.slug}-v{self.number}.{self.format}"


class Upload(models.Model):
    """One file of an upload that is still to be checked; its blob goes when the check ends."""

    version = models.ForeignKey(ModelVersion, null=True, on_delete=models.CASCADE, related_name="uploads")
    filename = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64)
    bytes = models.BigIntegerField()


class Alias(models.Model):
    """A movable name on a version, such as `champion`."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=63, validators=[slug_validator])
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="one_alias_a_name")]
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return f"{self.model.slug}@{self.name}"


class AliasMove(models.Model):
    """One move of an alias, kept for ever: who, when, from, to."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="alias_moves")
    name = models.CharField(max_length=63)
    from_version = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="+")
    to_version = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="+")
    reason = models.TextField(blank=True)
    moved_at = models.DateTimeField(auto_now_add=True)
    moved_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-moved_at", "-id"]


class Dataset(Checked):
    """An uploaded `.npz`: x, y and, when given, split."""

    name = models.CharField(max_length=120)
    filename = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64, db_index=True)
    bytes = models.BigIntegerField()
    facts = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["sha256"],
                condition=~models.Q(state=CheckState.REFUSED),
                name="a_dataset_is_kept_once",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Target(models.Model):
    """A hardware class: one runtime, and what is left of flash and RAM for one artifact."""

    class Runtime(models.TextChoices):
        """What runs the artifact."""

        ONNXRUNTIME = "onnxruntime"
        LITERT = "litert"
        MICROPYTHON = "micropython"
        TFLITE_MICRO = "tflite-micro"

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=120)
    runtime = models.CharField(max_length=20, choices=Runtime)
    chip = models.CharField(max_length=120, blank=True)
    flash_total_bytes = models.BigIntegerField()
    ram_total_bytes = models.BigIntegerField()
    flash_bytes = models.BigIntegerField(help_text="Free for one artifact.")
    ram_bytes = models.BigIntegerField(help_text="Free for one artifact and its arena.")
    subtraction = models.JSONField(default=list, blank=True, help_text="[{what, flash_bytes, ram_bytes}]")
    source = models.CharField(max_length=300, blank=True, help_text="The data sheet the totals come from.")
    clock_hz = models.BigIntegerField(null=True, blank=True)
    latency_us = models.BigIntegerField(null=True, blank=True, help_text="Budget of one inference.")
    chunk_bytes = models.PositiveIntegerField(default=32768)
    is_preset = models.BooleanField(default=False)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    @property
    def export_only(self) -> bool:
        """Whether artifacts are compressed, measured and downloaded, but never rolled out."""
        return self.runtime == self.Runtime.TFLITE_MICRO


class LatencyFactor(models.Model):
    """How much slower or faster a target proved to be in the field than estimated."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="latency_factors")
    runtime = models.CharField(max_length=20, choices=Target.Runtime)
    factor = models.FloatField()
    n = models.BigIntegerField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["target", "runtime"], name="one_factor_a_runtime")]


class Artifact(models.Model):
    """A published candidate: version x target, its bytes, measurements, lineage and self-test."""

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="artifacts")
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="artifacts")
    sha256 = models.CharField(max_length=64, db_index=True)
    bytes = models.BigIntegerField()
    format = models.CharField(max_length=10)
    transport_coding = models.CharField(max_length=10, default="none")
    transport_sha256 = models.CharField(max_length=64)
    transport_bytes = models.BigIntegerField()
    transport_index_sha256 = models.CharField(max_length=64, help_text="Blob of one SHA-256 a chunk.")
    self_test_sha256 = models.CharField(max_length=64)
    self_test_bytes = models.BigIntegerField()
    self_test_index_sha256 = models.CharField(max_length=64)
    signature = models.JSONField(default=dict)
    signature_sha256 = models.CharField(max_length=64, help_text="Blob of the signature as JSON.")
    signature_bytes = models.BigIntegerField()
    signature_index_sha256 = models.CharField(max_length=64)
    chunk_bytes = models.PositiveIntegerField(default=32768, help_text="What the indexes were made for.")
    measurements = models.JSONField(
        default=dict, help_text="accuracy, drop, macs, peak_ram_bytes, host_latency_us, ..."
    )
    lineage = models.JSONField(default=dict)
    dataset = models.ForeignKey(Dataset, null=True, on_delete=models.PROTECT)
    job = models.CharField(
        max_length=40, blank=True, help_text="Id of the job that published it; jobs may go."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    recalled_at = models.DateTimeField(null=True, blank=True)
    recall_reason = models.TextField(blank=True, help_text="Why no rollout may take it any more.")

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["version", "target", "sha256"], name="an_artifact_is_published_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.version} for {self.target.slug}"

    @property
    def download_name(self) -> str:
        """What its file is called when somebody downloads it."""
        return f"{self.version.model.slug}-v{self.version.number}-{self.target.slug}.{self.format}"

    @property
    def accuracy_floor(self) -> float | None:
        """Lower end of the Wilson 95 % interval on test rows, what a device's trial must not fall below.

        None for R² and AUC, which are no shares of right answers.
        """
        test = self.measurements.get("test_accuracy") or {}
        if test.get("metric", "accuracy") != "accuracy":
            return None
        low = test.get("low")
        return float(low) if low is not None else None


class BlobOffer(models.Model):
    """Outbox: a blob that the broker shall hold, in chunks of one size, until nobody wants it."""

    sha256 = models.CharField(max_length=64)
    bytes = models.BigIntegerField()
    chunk_bytes = models.PositiveIntegerField()
    wanted_until = models.DateTimeField()
    due = models.BooleanField(default=True, db_index=True)
    missing = models.JSONField(default=list, blank=True, help_text="Chunks asked for again; empty means all.")
    published_at = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sha256", "chunk_bytes"], name="one_offer_a_chunk_size")
        ]
