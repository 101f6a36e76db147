"""A group of devices that all run version 1, and a version 2 to be rolled out; the test lets time pass."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fleet.accounts.roles import Role
from fleet.inventory.models import DeviceGroup
from fleet.registry.models import Artifact, ModelVersion
from fleet.rollouts import engine, observing, services
from fleet.rollouts.models import Delivery, Rollout
from tests.factories import ArtifactFactory, GroupFactory, UserFactory, VersionFactory
from tests.fleet.devices_by_hand import HandDevice, hand_device

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RULES = {
    "waves": [1, "100%"],
    "soak_seconds": 0,
    "delivery_timeout_s": 600,
    "trial": {"max_seconds": 60, "min_labelled": 20},
}


class World:
    """A group of devices that all run version 1, and a version 2 to be rolled out."""

    def __init__(self, size: int = 6) -> None:
        self.now = NOW
        self.user = UserFactory(roles=[Role.OPERATOR])
        self.group: DeviceGroup = GroupFactory(slug="lab")
        self.v1: Artifact = ArtifactFactory()
        self.v2: Artifact = ArtifactFactory(version=VersionFactory(model=self.v1.version.model))
        self.devices = {f"pi-{n}": self._device(f"pi-{n}") for n in range(size)}

    def _device(self, name: str) -> HandDevice:
        device = hand_device(name, self.now, groups=[self.group])
        device.installed, device.sequence = self.v1.sha256, 3
        device.session += 1
        device.hello(self.now)
        return device

    def create(self, version: ModelVersion | None = None, **changes: Any) -> Rollout:
        """A started rollout, after its first tick."""
        rollout = services.create(
            self.user, version=version or self.v2.version, group=self.group, rules={**RULES, **changes}
        )
        services.start(self.user, rollout)
        self.tick(3)
        return self.fresh(rollout)

    def tick(self, times: int = 1, **later: float) -> None:
        """Let time pass, and the engine look."""
        for _ in range(times):
            self.now += timedelta(**(later or {"seconds": 1}))
            engine.tick(self.now)
            observing.tick(self.now)

    def offered(self) -> list[HandDevice]:
        """Devices with a delivery at work."""
        rows = Delivery.objects.filter(state="offered").values_list("device__name", flat=True)
        return [self.devices[name] for name in rows]

    def fresh(self, rollout: Rollout) -> Rollout:
        """As the database has it."""
        return services.rollout_by_id(rollout.pk)

    def succeed(self, devices: list[HandDevice]) -> None:
        """Each goes all the way and keeps it."""
        for device in devices:
            for state in ("downloading", "verifying", "testing", "trial"):
                device.status(state, self.now)
            evidence = {"n": 50, "labelled": 20, "correct": 19, "enough": True}
            device.status("succeeded", self.now, evidence=evidence)
