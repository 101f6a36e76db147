"""The first half of the seeded day: people, models, artifacts and compression jobs."""

import random
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from compression_jobs.models import Candidate, Job
from fleet.accounts.roles import Role
from fleet.accounts.services import ensure_roles, set_roles
from fleet.registry import services as registry
from fleet.registry.models import Artifact, CheckState, Dataset, ModelVersion, Target
from fleet.registry.presets import sync_targets
from tests.factories import (
    ArtifactFactory,
    DatasetFactory,
    JobFactory,
    ModelFactory,
    VersionFactory,
)

PASSWORD = "a-long-password-for-tests"
OPERATORS = {"Conv": 9, "Relu": 8, "Add": 3, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
FACTS = {
    "format": "onnx",
    "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 1, 8, 8]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": [-1, 10]}],
    "operators": OPERATORS,
    "parameters": 78_042,
    "macs": 1_214_528,
    "opset": 18,
    "producer": "pytorch 2.13.0",
    "quantised": False,
    "problems": [],
}


def share(value: float, n: int, half: float = 0.02) -> dict[str, Any]:
    """A share with an interval."""
    return {
        "value": value,
        "low": value - half,
        "high": min(1.0, value + half),
        "n": n,
        "split": "validation",
    }


def measurements(accuracy: float, ram: int, p50: float, **more: Any) -> dict[str, Any]:
    """What a candidate measured."""
    return {
        "accuracy": share(accuracy, 200),
        "reference_accuracy": share(0.975, 200),
        "drop": {"value": 0.975 - accuracy, "low": 0.965 - accuracy, "high": 0.99 - accuracy},
        "agreement": accuracy + 0.01,
        "parameters": 78_042,
        "macs": 1_214_528,
        "peak_ram_bytes": ram,
        "host_latency_us": {"p50": p50, "p95": p50 * 1.4},
        "missed": [],
        "notes": [],
        **more,
    }


# Key, recipe, bytes, accuracy, why it is not the published one.
CANDIDATES: list[tuple[str, list[dict[str, Any]], int, float, str]] = [
    (
        "float",
        [{"name": "canonicalise", "options": {}}],
        318_464,
        0.975,
        "larger than the published one",
    ),
    (
        "minmax",
        [{"name": "quantize", "options": {"calibration": "minmax"}}],
        88_700,
        0.945,
        "less accurate at the same size",
    ),
    (
        "percentile",
        [{"name": "quantize", "options": {"calibration": "percentile"}}],
        88_650,
        0.955,
        "less accurate at the same size",
    ),
    (
        "mse",
        [{"name": "quantize", "options": {"calibration": "mse"}}],
        88_690,
        0.93,
        "drop of 4.5 points; at most 3 are allowed",
    ),
    ("entropy", [{"name": "quantize", "options": {"calibration": "entropy"}}], 88_640, 0.965, ""),
]


class Workshop:
    """What exists before any device does; one method a part, in the order of the story."""

    def __init__(self) -> None:
        self.now = timezone.now()
        self.random = random.Random(7)
        self.admin = self.person("ada", Role.ADMIN)
        self.person("vera", Role.VIEWER)
        sync_targets()
        self.pi4 = Target.objects.get(slug="raspberry-pi-4")
        self.zero = Target.objects.get(slug="raspberry-pi-zero-2-w")
        self.pi5 = Target.objects.get(slug="raspberry-pi-5")

    def ago(self, **span: float) -> datetime:
        """A moment before now."""
        return self.now - timedelta(**span)

    def person(self, name: str, role: Role) -> User:
        """Somebody who can log in."""
        ensure_roles()
        user = User.objects.create_user(name, password=PASSWORD)
        set_roles(user, {role})
        return user

    def models(self) -> None:
        """Two models, three good versions, one refused, one being checked."""
        digits = ModelFactory(
            slug="digits", name="Handwritten digits", description="8 × 8 pixels, ten classes; reads meters."
        )
        wake = ModelFactory(slug="wake-word", name="Wake word")
        common = {"facts": FACTS, "bytes": 318_464, "filename": "digits.onnx", "created_by": self.admin}
        self.v1: ModelVersion = VersionFactory(model=digits, notes="First residual CNN.", **common)
        self.v2: ModelVersion = VersionFactory(model=digits, notes="Trained on relabelled data.", **common)
        self.v3: ModelVersion = VersionFactory(
            model=digits, notes="Labels corrected, ten more epochs.", **common
        )
        VersionFactory(
            model=wake, state=CheckState.REFUSED, sha256="", filename="wake.onnx", facts={},
            reason="weights are in wake.onnx.data; upload both, or export with external_data=False",
            problems=["Loop_3: control flow is not supported", "weights are in wake.onnx.data"],
        )  # fmt: skip
        VersionFactory(model=wake, state=CheckState.CHECKING, sha256="", upload_sha256="c" * 64, facts={})
        self.dataset: Dataset = DatasetFactory(name="digits 2026-11")
        registry.move_alias(digits, "champion", self.v1, user=self.admin, reason="first release")
        registry.move_alias(digits, "candidate", self.v3, user=self.admin, reason="labels corrected")

    def artifacts(self) -> None:
        """Each version for the two kinds of Raspberry Pi."""
        self.of: dict[tuple[int, int], Artifact] = {}
        for version in (self.v1, self.v2, self.v3):
            for target in (self.pi4, self.zero):
                content = self.random.randbytes(86_000 + 900 * version.number)
                figures = measurements(0.965, 41_984, 62.0, test_accuracy=share(0.96, 250))
                artifact = ArtifactFactory(
                    version=version,
                    target=target,
                    content=content,
                    measurements=figures,
                    dataset=self.dataset,
                )
                self.of[version.pk, target.pk] = artifact

    def jobs(self) -> None:
        """One that ended, one that runs, one that failed."""
        goals = {"min_accuracy": 0.9, "max_drop": 0.03, "objective": "bytes"}
        done = JobFactory(
            version=self.v3, dataset=self.dataset, goals=goals, state=Job.State.SUCCEEDED, created_by=self.admin, targets=[self.pi4, self.zero],
            started_at=self.ago(hours=3), finished_at=self.ago(hours=2.9), attempt=1,
            results={
                "raspberry-pi-4": {"met": True, "shown": False, "sentence": "int8 by entropy met accuracy ≥ 90 % and drop ≤ 3 points with 86.6 KiB; n = 200 cannot show 3 points, about 900 rows would."},
                "raspberry-pi-zero-2-w": {"met": True, "shown": True, "sentence": "int8 by entropy met both goals with 86.6 KiB."},
            },
        )  # fmt: skip
        for target in (self.pi4, self.zero):
            self.candidates(done, target)
        running = JobFactory(
            version=self.v2, dataset=self.dataset, goals=goals, state=Job.State.RUNNING, created_by=self.admin, targets=[self.pi4],
            started_at=self.ago(minutes=1), attempt=1,
            progress={"step": "measure", "done": 4, "total": 9, "message": "int8 by percentile", "target": "raspberry-pi-4"},
        )  # fmt: skip
        Candidate.objects.create(job=running, target=self.pi4, key="float", recipe=[], sha256="a" * 64, format="onnx", bytes=318_464, measurements=measurements(0.975, 62_000, 80.0), fits=True)  # fmt: skip
        JobFactory(
            version=self.v1, dataset=self.dataset, goals=goals | {"min_accuracy": 0.995}, state=Job.State.FAILED, targets=[self.pi4], finished_at=self.ago(days=1),
            reason="no candidate for raspberry-pi-4 reaches an accuracy of 99.5 %; the nearest is the float model with 97.5 %.",
            results={"raspberry-pi-4": {"met": False, "shown": False, "sentence": "accuracy binds: 97.5 % at most, 99.5 % asked.", "binding": "min_accuracy"}},
        )  # fmt: skip

    def candidates(self, job: Job, target: Target) -> None:
        """A front of a few candidates."""
        for key, recipe, size, accuracy, rejected in CANDIDATES:
            Candidate.objects.create(
                job=job, target=target, key=key, recipe=recipe, sha256=key.ljust(64, "0"), format="onnx", bytes=size, peak_ram_bytes=41_984,
                measurements=measurements(accuracy, 41_984, 62.0), fits=key != "mse", on_front=key in ("float", "entropy"), rejected=rejected,
                artifact=None if rejected else self.of[job.version_id, target.pk],
            )  # fmt: skip
        artifact = self.of[job.version_id, target.pk]
        Artifact.objects.filter(pk=artifact.pk).update(job=str(job.pk))
