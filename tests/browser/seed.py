"""A fleet in the middle of its day, for looking at pages.

`manage.py shell -c 'from tests.browser.seed import main; main()'` fills the configured database.
"""

import random
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.utils import timezone

from compression_jobs.models import Candidate, Job
from device_agent.core.histogram import Histogram
from fleet.accounts.roles import Role
from fleet.accounts.services import ensure_roles, make_token, set_roles
from fleet.inventory.models import Command, Device, DeviceApp, DeviceGroup, InstalledSpan
from fleet.registry import services as registry
from fleet.registry.models import Artifact, CheckState, Dataset, ModelVersion, Target
from fleet.registry.presets import sync_targets
from fleet.rollouts.models import Decision, Delivery, Rollout, Wave
from fleet.rollouts.strategy import Strategy
from fleet.telemetry.models import Alert, Report
from fleet.telemetry.rollups import roll_up
from tests.factories import (
    ArtifactFactory,
    DatasetFactory,
    DeviceFactory,
    GroupFactory,
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


class Seed:
    """Builds the whole; one method a part, in the order of the story."""

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
        rows = [
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
        for key, recipe, size, accuracy, rejected in rows:
            Candidate.objects.create(
                job=job, target=target, key=key, recipe=recipe, sha256=key.ljust(64, "0"), format="onnx", bytes=size, peak_ram_bytes=41_984,
                measurements=measurements(accuracy, 41_984, 62.0), fits=key != "mse", on_front=key in ("float", "entropy"), rejected=rejected,
                artifact=None if rejected else self.of[job.version_id, target.pk],
            )  # fmt: skip
        artifact = self.of[job.version_id, target.pk]
        Artifact.objects.filter(pk=artifact.pk).update(job=str(job.pk))

    def devices(self) -> None:
        """Two dozen devices of three kinds in three groups."""
        self.office: DeviceGroup = GroupFactory(
            slug="office", name="Office meters", description="Close enough to walk to."
        )
        self.cellar: DeviceGroup = GroupFactory(slug="cellar", name="Cellar meters")
        GroupFactory(
            slug="berlin",
            name="Everything in Berlin",
            rule="site=berlin and target in (raspberry-pi-4, raspberry-pi-zero-2-w)",
        )
        self.fleet: list[Device] = []
        for number in range(24):
            target = (self.pi4, self.zero, self.pi5)[min(number % 5 // 2, 2)]
            device = DeviceFactory(
                name=f"meter-{number + 1:02}", target=target, groups=[self.office if number < 14 else self.cellar],
                labels={"site": "berlin" if number % 3 else "hamburg", "floor": str(number % 4)}, online=True,
                last_seen_at=self.ago(seconds=5 + number), hello_at=self.ago(hours=2), epoch=number + 1, session=65537,
                hello={"board": "Raspberry Pi 4 Model B" if target == self.pi4 else target.name, "runtime": "onnxruntime 1.31.0", "agent": "0.1.0", "heap_free": 1_500_000_000, "flash_free": 21_000_000_000, "boot": 3, "clock": True},
            )  # fmt: skip
            self.fleet.append(device)
        self.absences()

    def absences(self) -> None:
        """Some are overdue, offline, never seen or revoked."""
        Device.objects.filter(name__in=["meter-04", "meter-19"]).update(last_seen_at=self.ago(minutes=22))
        Device.objects.filter(name__in=["meter-08", "meter-21"]).update(
            online=False, last_seen_at=self.ago(hours=7)
        )
        Device.objects.filter(name="meter-24").update(online=False, last_seen_at=None, hello={})
        Device.objects.filter(name="meter-23").update(state=Device.State.REVOKED, online=False)
        late = Device.objects.get(name="meter-04")
        Alert.objects.create(
            kind=Alert.Kind.OVERDUE,
            device=late,
            sentence="meter-04 has been silent for 22 minutes, although it was not switched off.",
        )
        Command.objects.create(
            id=uuid.uuid4(), device=self.fleet[0], name="selftest", state=Command.State.ANSWERED, due=False,
            expires_at=self.ago(minutes=-30), answered_at=self.ago(minutes=3), result={"ok": True, "samples": 8}, created_by=self.admin,
        )  # fmt: skip

    def rollouts(self) -> None:
        """One that succeeded, one that went back, one at work, one held."""
        self.rollout(self.v1, self.office, Rollout.State.SUCCEEDED, hours=3, reason="every wave passed")
        broken = self.rollout(
            self.v2,
            self.office,
            Rollout.State.ROLLED_BACK,
            hours=1,
            reason="1 of 1 devices went back by itself: wrong labels; everybody is back on digits v1",
        )
        Wave.objects.filter(rollout=broken).update(
            state=Wave.State.FAILED,
            verdict={
                "decision": "roll_back",
                "sentence": "the one device of the first wave rolled back by itself",
                "n": 1,
                "failed": 1,
            },
        )
        broken.deliveries.filter(wave__number__gt=1).update(
            state=Delivery.State.CANCELLED, reason="the rollout is rolled back", offered_at=None
        )
        broken.deliveries.filter(wave__number=1).update(
            state=Delivery.State.ROLLED_BACK,
            reason="E = 412 against an accuracy of 93.0 %: 3 of 21 labels right",
            evidence={"n": 61, "labelled": 21, "correct": 3, "errors": 0},
        )
        live = self.rollout(
            self.v3, self.office, Rollout.State.RUNNING, hours=0.2, reason="wave 2 is under way"
        )
        self.half_way(live)
        self.rollout(
            self.v3,
            self.cellar,
            Rollout.State.HELD,
            hours=5,
            reason="nobody of wave 1 could install it; a person decides",
        )

    def rollout(
        self, version: ModelVersion, group: DeviceGroup, state: str, hours: float, reason: str
    ) -> Rollout:
        """A rollout to the devices of a group in three waves."""
        began = self.ago(hours=hours)
        made = Rollout.objects.create(
            version=version, group=group, state=state, reason=reason, strategy=Strategy(waves=[1, "50%", "100%"]).model_dump(), created_by=self.admin, started_at=began,
            finished_at=began + timedelta(minutes=9) if state in Rollout.ENDS else None,
            dropped=[{"device": "meter-05", "reason": "no artifact of this version for raspberry-pi-5"}, {"device": "meter-10", "reason": "no artifact of this version for raspberry-pi-5"}],
        )  # fmt: skip
        members = [d for d in self.fleet if group in d.groups.all() and (version.pk, d.target_id) in self.of]
        waves = [
            Wave.objects.create(
                rollout=made,
                number=n,
                state=Wave.State.PASSED,
                started_at=began,
                verdict={
                    "decision": "proceed",
                    "sentence": f"0 of {s} failed; up to 39 % not excluded, which a fleet of this size cannot do",
                    "n": s,
                    "failed": 0,
                },
            )
            for n, s in ((1, 1), (2, 5), (3, 6))
        ]
        for position, device in enumerate(members):
            self.deliver(made, waves[0 if position == 0 else 1 if position < 6 else 2], device, began)
        Decision.objects.create(rollout=made, verb="start", sentence="starts now", decided_by=self.admin)
        Decision.objects.create(
            rollout=made, wave=waves[0], verb="proceed", sentence="the device of the first wave kept it"
        )
        return made

    def deliver(self, rollout: Rollout, wave: Wave, device: Device, began: datetime) -> Delivery:
        """A delivery that succeeded."""
        at = began + timedelta(minutes=2 * wave.number)
        return Delivery.objects.create(
            id=uuid.uuid4(), rollout=rollout, wave=wave, device=device, artifact=self.of[rollout.version_id, device.target_id], state=Delivery.State.SUCCEEDED,
            evidence={"n": 54, "labelled": 22, "correct": 21, "errors": 0}, offered_at=at, changed_at=at, finished_at=at,
        )  # fmt: skip

    def half_way(self, rollout: Rollout) -> None:
        """The second wave is at work, the third waits."""
        Wave.objects.filter(rollout=rollout, number=2).update(
            state=Wave.State.RUNNING,
            verdict={"decision": "wait", "sentence": "the wave is under way: 2 of 5 ended, 0 failed"},
        )
        Wave.objects.filter(rollout=rollout, number=3).update(state=Wave.State.PENDING, verdict={})
        rollout.deliveries.filter(wave__number=3).update(
            state=Delivery.State.PENDING, evidence={}, offered_at=None, finished_at=None
        )
        for delivery, state in zip(
            rollout.deliveries.filter(wave__number=2),
            ("succeeded", "succeeded", "trial", "downloading", "timed_out"),
            strict=False,
        ):
            Delivery.objects.filter(pk=delivery.pk).update(
                state=state, reason="said nothing for 3600 s" if state == "timed_out" else ""
            )

    def installed(self) -> None:
        """What devices say they run."""
        for device in self.fleet[:22]:
            artifact = self.of.get((self.v1.pk, device.target_id))
            if artifact is None:
                DeviceApp.objects.create(device=device)
                continue
            DeviceApp.objects.create(
                device=device,
                artifact=artifact,
                artifact_sha256=artifact.sha256,
                delivery_state="downloading" if device.name == "meter-06" else "",
            )
            InstalledSpan.objects.create(
                device=device,
                app="main",
                artifact=artifact,
                artifact_sha256=artifact.sha256,
                since=self.ago(hours=2.9),
            )

    def telemetry(self) -> None:
        """Fifty minutes of reports, with a hole and a slower quarter of an hour."""
        for device in self.fleet[:14]:
            artifact = self.of.get((self.v1.pk, device.target_id))
            if artifact is None:
                continue
            for minute in range(50):
                if not 18 <= minute <= 22:
                    self.report(device, artifact, minute)
        roll_up()

    def report(self, device: Device, artifact: Artifact, minute: int) -> None:
        """One window of one device."""
        end = self.ago(minutes=minute)
        seen = Histogram()
        for _ in range(40):
            seen.add(int(self.random.lognormvariate(7.2 if 30 < minute < 42 else 6.9, 0.35)))
        labelled = self.random.randint(4, 9)
        correct = sum(self.random.random() < 0.96 for _ in range(labelled))
        Report.objects.create(
            device=device, epoch=device.epoch or 1, boot=3, sequence=1000 - minute, app="main", artifact=artifact, artifact_sha256=artifact.sha256, slot="a", phase="live",
            start_at=end - timedelta(seconds=60), end_at=end, n=40, latency=seen.to_wire(), labelled=labelled, correct=correct, errors=0,
        )  # fmt: skip

    def everything(self) -> None:
        """All parts in order."""
        for part in (
            self.models,
            self.artifacts,
            self.jobs,
            self.devices,
            self.rollouts,
            self.installed,
            self.telemetry,
        ):
            part()
        make_token(self.admin, "laptop")


def main() -> None:
    """Make the tables and fill them."""
    call_command("migrate", verbosity=0)
    Seed().everything()
