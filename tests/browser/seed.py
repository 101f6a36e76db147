"""A fleet in the middle of its day, for looking at pages.

`manage.py shell -c 'from tests.browser.seed import main; main()'` fills the configured database.
"""

import uuid
from dataclasses import asdict
from datetime import datetime, timedelta

from django.core.management import call_command

from device_agent.core.histogram import Histogram
from fleet.accounts.services import make_token
from fleet.inventory.models import Command, Device, DeviceApp, DeviceGroup, InstalledSpan
from fleet.registry.models import Artifact, ModelVersion
from fleet.rollouts.models import Decision, Delivery, Experiment, Pair, Rollout, Wave
from fleet.rollouts.strategy import Strategy
from fleet.rollouts.terms import Terms
from fleet.rollouts.versus import judge
from fleet.telemetry.models import Alert, Report
from fleet.telemetry.rollups import roll_up
from tests.browser.seed_workshop import Workshop
from tests.factories import (
    DeviceFactory,
    GroupFactory,
)


class Seed(Workshop):
    """The whole: devices in the middle of their day on top of the workshop."""

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

    def experiment(self) -> None:
        """Two versions on halves of the office, five pairs counted and one under way."""
        made = Experiment.objects.create(
            version_a=self.v1, version_b=self.v3, group=self.office, app="door", terms=Terms().model_dump(), strategy=Strategy().model_dump(),
            reason="5 of 6 pairs counted; neither is shown to be better", created_at=self.ago(hours=5), looked_at=self.ago(minutes=1), created_by=self.admin,
        )  # fmt: skip
        values = [(0.94, 0.97), (0.95, 0.96), (0.96, 0.96), (0.93, 0.98), (0.95, 0.97)]
        halves = list(zip(self.fleet[0:12:2], self.fleet[1:12:2], strict=True))
        for number, (a, b) in enumerate(halves, 1):
            counted = number <= len(values)
            seen = dict(zip(("value_a", "value_b"), values[number - 1], strict=True)) if counted else {}
            state = Pair.State.COUNTED if counted else Pair.State.WATCHED
            Pair.objects.create(
                experiment=made,
                number=number,
                device_a=a,
                device_b=b,
                state=state,
                since=self.ago(hours=4),
                **seen,
            )
        made.finding = asdict(judge([b - a for a, b in values], Terms().alpha))
        made.save(update_fields=["finding"])

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
            self.experiment,
            self.installed,
            self.telemetry,
        ):
            part()
        make_token(self.admin, "laptop")


def main() -> None:
    """Make the tables and fill them."""
    call_command("migrate", verbosity=0)
    Seed().everything()
