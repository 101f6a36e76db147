"""Who gets it, when: rollouts, their waves, each device's delivery, and the signed intents that carry them."""

import uuid

from django.conf import settings
from django.db import models

from fleet.inventory.models import Device, DeviceGroup
from fleet.registry.models import Artifact, ModelVersion


class Experiment(models.Model):
    """Two versions on random halves of a group, until one is shown to be better."""

    class State(models.TextChoices):
        """Where it stands; only a running one keeps its devices."""

        RUNNING = "running"
        DECIDED = "decided"
        UNDECIDED = "undecided"
        STOPPED = "stopped"
        PROMOTED = "promoted"

    class Side(models.TextChoices):
        """The two versions."""

        A = "a"
        B = "b"

    version_a = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    version_b = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    group = models.ForeignKey(DeviceGroup, on_delete=models.PROTECT, related_name="experiments")
    app = models.CharField(max_length=64, default="main")
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    terms = models.JSONField(default=dict, help_text="What is compared, and who decides: see terms.py.")
    strategy = models.JSONField(default=dict, help_text="How each half gets its version: see strategy.py.")
    dropped = models.JSONField(default=list, blank=True, help_text="[{device, reason}] in neither half.")
    reason = models.TextField(blank=True, help_text="The sentence that explains the present state.")
    finding = models.JSONField(default=dict, blank=True, help_text="What pairs say so far: see versus.py.")
    winner = models.CharField(max_length=1, choices=Side, blank=True, help_text="What was promoted or shown.")
    promotion = models.ForeignKey("Rollout", null=True, on_delete=models.SET_NULL, related_name="+")
    looked_at = models.DateTimeField()
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.version_a} against {self.version_b} on {self.group.slug}"


class Pair(models.Model):
    """Two devices as alike as can be, one for each version; the odd one of a target has no partner."""

    class State(models.TextChoices):
        """From waiting for both versions to a number that never changes."""

        WAITING = "waiting"
        WATCHED = "watched"
        COUNTED = "counted"
        OUT = "out"

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="pairs")
    number = models.PositiveIntegerField()
    device_a = models.ForeignKey(Device, null=True, on_delete=models.CASCADE, related_name="+")
    device_b = models.ForeignKey(Device, null=True, on_delete=models.CASCADE, related_name="+")
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    since = models.DateTimeField(null=True, blank=True, help_text="When both ran their version.")
    value_a = models.FloatField(null=True, blank=True)
    value_b = models.FloatField(null=True, blank=True)
    lost = models.CharField(
        max_length=1,
        choices=Experiment.Side,
        blank=True,
        help_text="Whose version its device could not keep.",
    )
    reason = models.TextField(blank=True)

    class Meta:
        ordering = ["experiment", "number"]
        constraints = [models.UniqueConstraint(fields=["experiment", "number"], name="one_number_a_pair")]


class Rollout(models.Model):
    """One version on its way to one group of devices."""

    class State(models.TextChoices):
        """Design, section 6."""

        DRAFT = "draft"
        AWAITING_APPROVAL = "awaiting_approval"
        SCHEDULED = "scheduled"
        STARTING = "starting"
        RUNNING = "running"
        PAUSED = "paused"
        HELD = "held"
        SUCCEEDED = "succeeded"
        ROLLING_BACK = "rolling_back"
        ROLLED_BACK = "rolled_back"
        ABORTED = "aborted"

    ENDS = (State.SUCCEEDED, State.ROLLED_BACK, State.ABORTED)

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rollouts")
    group = models.ForeignKey(DeviceGroup, on_delete=models.PROTECT, related_name="rollouts")
    app = models.CharField(max_length=64, default="main")
    state = models.CharField(max_length=20, choices=State, default=State.DRAFT)
    strategy = models.JSONField(default=dict, help_text="Waves, soak, trial, gates: see strategy.py.")
    reason = models.TextField(blank=True, help_text="The sentence that explains the present state.")
    dropped = models.JSONField(default=list, blank=True, help_text="[{device, reason}] left out by the plan.")
    held_back = models.JSONField(
        default=list, blank=True, help_text="Names of devices that stay on what they run, for comparison."
    )
    joined_at = models.DateTimeField(
        null=True, blank=True, help_text="When the group was last looked through for late joiners."
    )
    start_at = models.DateTimeField(null=True, blank=True, help_text="When a scheduled rollout starts.")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    state_since = models.DateTimeField(null=True, blank=True, help_text="When it came into its state.")
    key = models.CharField(
        max_length=120, null=True, unique=True, help_text="Asked for twice with one key, it is made once."
    )
    experiment = models.ForeignKey(
        Experiment, null=True, blank=True, on_delete=models.SET_NULL, related_name="rollouts"
    )
    side = models.CharField(
        max_length=1, choices=Experiment.Side, blank=True, help_text="Which half of the experiment it is for."
    )

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.version} to {self.group.slug}"

    @property
    def is_over(self) -> bool:
        """Whether the rollout reached an end."""
        return self.state in self.ENDS


class Wave(models.Model):
    """One step of a rollout."""

    class State(models.TextChoices):
        """Design, section 6."""

        PENDING = "pending"
        RUNNING = "running"
        SOAKING = "soaking"
        PASSED = "passed"
        HELD = "held"
        FAILED = "failed"

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="waves")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    asked_upto = models.PositiveIntegerField(
        default=0, help_text="How many of the rollout may have been asked before the next look."
    )
    started_at = models.DateTimeField(null=True, blank=True)
    soaking_since = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    verdict = models.JSONField(
        default=dict, blank=True, help_text="The gate's last word: decision, sentence, evidence."
    )

    class Meta:
        ordering = ["rollout", "number"]
        constraints = [models.UniqueConstraint(fields=["rollout", "number"], name="one_number_a_wave")]


class PlanPart(models.Model):
    """Some devices' part of a plan that has been drawn up, until it is written as deliveries."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="unwritten")
    number = models.PositiveIntegerField()
    devices = models.JSONField(help_text="Keys of the devices.")
    rows = models.JSONField(help_text="A list for each delivery, see preparation.COLUMNS.")
    whys = models.JSONField(default=list, help_text="What `why` may be: rows hold its place in this list.")

    class Meta:
        ordering = ["rollout", "number"]
        constraints = [models.UniqueConstraint(fields=["rollout", "number"], name="one_number_a_plan_part")]


class Delivery(models.Model):
    """One device's share of a rollout: an installation, or the way back from it."""

    class Kind(models.TextChoices):
        """Which way it goes."""

        INSTALL = "install"
        ROLL_BACK = "roll_back"

    class State(models.TextChoices):
        """Design, section 4; devices report offered to trial and the first four ends."""

        PENDING = "pending"
        OFFERED = "offered"
        DOWNLOADING = "downloading"
        VERIFYING = "verifying"
        TESTING = "testing"
        TRIAL = "trial"
        SUCCEEDED = "succeeded"
        REJECTED = "rejected"
        FAILED = "failed"
        ROLLED_BACK = "rolled_back"
        TIMED_OUT = "timed_out"
        CANCELLED = "cancelled"
        SUPERSEDED = "superseded"
        SKIPPED = "skipped"

    class Consent(models.TextChoices):
        """What the owner of a device that asks has said; empty where nobody is asked."""

        WANTED = "wanted"
        NOW = "now"
        TONIGHT = "tonight"
        NO = "no"

    ENDS = (
        State.SUCCEEDED,
        State.REJECTED,
        State.FAILED,
        State.ROLLED_BACK,
        State.TIMED_OUT,
        State.CANCELLED,
        State.SUPERSEDED,
        State.SKIPPED,
    )

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    ticket = models.UUIDField(
        null=True, unique=True, help_text="What the device calls a further try; empty on the first."
    )
    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="deliveries")
    wave = models.ForeignKey(Wave, null=True, on_delete=models.CASCADE, related_name="deliveries")
    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="deliveries")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.INSTALL)
    artifact = models.ForeignKey(Artifact, null=True, on_delete=models.PROTECT, related_name="deliveries")
    previous = models.ForeignKey(
        Artifact,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="What ran before, to go back to.",
    )
    state = models.CharField(max_length=12, choices=State, default=State.PENDING)
    reason = models.TextField(blank=True)
    evidence = models.JSONField(default=dict, blank=True, help_text="What the device's trial saw.")
    history = models.JSONField(default=list, blank=True, help_text="[{state, at, reason}] in order.")
    attempt = models.PositiveIntegerField(default=1)
    position = models.PositiveIntegerField(
        default=0, help_text="Place in the plan; gates count devices in this order."
    )
    hops = models.JSONField(
        default=list, blank=True, help_text="Artifacts that follow this one; the last is of the version."
    )
    why = models.JSONField(
        default=list, blank=True, help_text="[{gate, left, sentence}]: why this artifact on this device."
    )
    site = models.CharField(max_length=120, blank=True)
    zone = models.CharField(max_length=120, blank=True, help_text="Time zone of its maintenance windows.")
    byte_budget = models.BigIntegerField(null=True, blank=True, help_text="Bytes in any 24 hours.")
    consent = models.CharField(max_length=8, choices=Consent, blank=True)
    question = models.UUIDField(
        null=True, unique=True, help_text="The command that asks a person at the device for consent."
    )
    not_before = models.DateTimeField(null=True, blank=True)
    tries = models.PositiveIntegerField(default=0, help_text="How often it was tried again on its own.")
    created_at = models.DateTimeField(auto_now_add=True)
    offered_at = models.DateTimeField(null=True, blank=True)
    changed_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at", "id"]
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["rollout", "device", "kind"], name="one_delivery_a_device_and_way"
            )
        ]
        # By device for what it does now, by state for the few that are open among all that ever were.
        indexes = [models.Index(fields=["device", "state"]), models.Index(fields=["state", "rollout"])]

    @property
    def is_over(self) -> bool:
        """Whether the delivery reached an end."""
        return self.state in self.ENDS

    @property
    def wire_id(self) -> str:
        """What manifests and devices call the present try."""
        return str(self.ticket or self.pk)


class Sending(models.Model):
    """Bytes that one offer may take over the air; budgets count those of the last 24 hours."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="+")
    delivery = models.ForeignKey(Delivery, null=True, on_delete=models.SET_NULL, related_name="+")
    site = models.CharField(max_length=120, blank=True)
    bytes = models.BigIntegerField()
    at = models.DateTimeField(db_index=True)


class Intent(models.Model):
    """Outbox: the signed statement of what one app of one device should run; the highest sequence counts."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="intents")
    app = models.CharField(max_length=64)
    sequence = models.BigIntegerField()
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="intents")
    payload = models.BinaryField(help_text="Signature, key id and JSON, exactly as sent; empty: withdrawn.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the payload, as a hello names it.")
    issued_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    current = models.BooleanField(default=True, help_text="False once a later intent took its place.")
    due = models.BooleanField(default=True, db_index=True)
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["device", "app", "sequence"], name="a_sequence_is_used_once"),
            models.UniqueConstraint(
                fields=["device", "app"], condition=models.Q(current=True), name="one_current_intent_an_app"
            ),
        ]


class Decision(models.Model):
    """A note on every decision, by a gate or a person, kept for ever."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="decisions")
    wave = models.ForeignKey(Wave, null=True, on_delete=models.CASCADE)
    verb = models.CharField(max_length=32)
    sentence = models.TextField()
    evidence = models.JSONField(default=dict, blank=True)
    decided_at = models.DateTimeField(auto_now_add=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, help_text="Empty: the gate."
    )

    class Meta:
        ordering = ["-decided_at", "-id"]


class Hook(models.Model):
    """Somebody who wants to know how rollouts and experiments go: a web address, or an e-mail address."""

    class Kind(models.TextChoices):
        """How it is told."""

        WEBHOOK = "webhook"
        EMAIL = "email"

    # Random, because the secret that signs its messages derives from it.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    kind = models.CharField(max_length=8, choices=Kind)
    address = models.CharField(max_length=500)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["created_at"]
        constraints = [models.UniqueConstraint(fields=["kind", "address"], name="an_address_is_told_once")]


class Notice(models.Model):
    """Outbox: one thing to tell one hook, tried with growing waits until it is taken or given up."""

    class State(models.TextChoices):
        """Where it stands."""

        WAITING = "waiting"
        SENT = "sent"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    hook = models.ForeignKey(Hook, on_delete=models.CASCADE, related_name="notices")
    rollout = models.ForeignKey(Rollout, null=True, on_delete=models.CASCADE, related_name="notices")
    experiment = models.ForeignKey(Experiment, null=True, on_delete=models.CASCADE, related_name="notices")
    event = models.CharField(max_length=20)
    body = models.JSONField()
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(db_index=True)
    made_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(blank=True, help_text="Why the last try failed.")

    class Meta:
        ordering = ["-made_at"]
