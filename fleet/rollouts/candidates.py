"""What planning needs to know of devices and artifacts, read from rows in a handful of queries."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleet.inventory import services as inventory
from fleet.inventory.labels import facts_of
from fleet.inventory.models import Device, DeviceApp
from fleet.registry import offers as blobs
from fleet.registry.models import Artifact, LatencyFactor, ModelVersion
from fleet.rollouts import planning
from fleet.rollouts.choice import Offer, Room
from fleet.rollouts.models import Delivery, Experiment, Pair, PlanPart, Rollout
from fleet.rollouts.strategy import Strategy
from fleet.telemetry import summaries

# While a rollout is in one of these states its devices belong to it.
AT_WORK = (
    Rollout.State.STARTING,
    Rollout.State.RUNNING,
    Rollout.State.PAUSED,
    Rollout.State.HELD,
    Rollout.State.ROLLING_BACK,
)
_ABOVE_ALL = 1000
# Inferences in the field that say more about a latency than an estimate does.
ENOUGH_INFERENCES = 20
_NOT_TAKING_PART = (Delivery.State.CANCELLED, Delivery.State.SKIPPED, Delivery.State.SUPERSEDED)


class _Runs(NamedTuple):
    """What a device says it runs; the artifact is missing when it is none of ours."""

    sha256: str = ""
    artifact: Artifact | None = None


_NOTHING = _Runs()


class Reader:
    """Offers of one version, of those to pass through, and the candidates among devices."""

    def __init__(
        self, version: ModelVersion, app: str, strategy: Strategy, experiment: int | None = None
    ) -> None:
        self.version, self.app, self.strategy, self.experiment = version, app, strategy, experiment
        numbers = [number for number in strategy.who.must_pass_through if number < version.number]
        self.offers: dict[str, list[Offer]] = offers_of(version)
        found = ModelVersion.objects.filter(model=version.model_id, number__in=numbers)
        self.hops = {each.number: offers_of(each) for each in found}

    def candidates(self, devices: Sequence[Device]) -> list[planning.Candidate]:
        """Each device as planning sees it."""
        runs = self._runs()
        taken = in_experiments(self.app, self.experiment) | {
            device: (f"rollout {rollout}", priority) for device, (rollout, priority) in busy(self.app).items()
        }
        excluded = self._excluded()
        recalled = recalls(self.version)
        return [
            self._candidate(
                device, runs.get(device.pk, _NOTHING), taken, excluded.get(device.pk, frozenset()), recalled
            )
            for device in devices
        ]

    def _candidate(
        self,
        device: Device,
        row: _Runs,
        taken: dict[int, tuple[str, int]],
        groups: frozenset[str],
        recalled: dict[str, str],
    ) -> planning.Candidate:
        runs = row.artifact
        ours = runs is not None and runs.version.model_id == self.version.model_id
        busy_with, priority = taken.get(device.pk, ("", 0))
        return planning.Candidate(
            device=device.name,
            target=device.target.slug,
            facts=facts_of(device),
            groups=groups,
            export_only=device.target.export_only,
            state=device.state,
            installed=row.sha256,
            version=runs.version.number if runs is not None and ours else 0,
            room=room_of(device, runs, self.app, self.strategy.trial.shadow),
            asks=device.hello.get("asks") is True,
            busy_with=busy_with,
            busy_priority=priority,
            recalled=recalled.get(device.target.slug, ""),
        )

    def _runs(self) -> dict[int, _Runs]:
        """What each device runs; thousands share a handful of artifacts, which are read once."""
        rows = DeviceApp.objects.filter(app=self.app)
        found = list(rows.values_list("device_id", "artifact_sha256", "artifact_id"))
        few = Artifact.objects.select_related("version").defer("signature", "lineage", "version__facts")
        artifacts = few.in_bulk({artifact for _, _, artifact in found if artifact})
        return {device: _Runs(sha256, artifacts.get(artifact)) for device, sha256, artifact in found}

    def _excluded(self) -> dict[int, frozenset[str]]:
        found: dict[int, frozenset[str]] = {}
        for slug in self.strategy.who.exclude_groups:
            for device in inventory.members(inventory.group_named(slug)):
                found[device.pk] = found.get(device.pk, frozenset()) | {slug}
        return found


def offers_of(version: ModelVersion) -> dict[str, list[Offer]]:
    """Artifacts of a version by slug of target, oldest first; recalled ones do not count."""
    found = Artifact.objects.filter(version=version, version__recalled_at=None, recalled_at=None)
    found = found.select_related("target")
    factors = dict(LatencyFactor.objects.values_list("target_id", "factor"))
    offers: dict[str, list[Offer]] = {}
    for artifact in found.order_by("created_at", "pk"):
        offers.setdefault(artifact.target.slug, []).append(_offer(artifact, factors))
    return offers


def recalls(version: ModelVersion) -> dict[str, str]:
    """Why the newest recalled artifact of a version went, by slug of target."""
    found = Artifact.objects.filter(version=version, recalled_at__isnull=False).select_related("target")
    return {
        artifact.target.slug: f"artifact {artifact.pk} is recalled: {artifact.recall_reason}"
        for artifact in found.order_by("created_at", "pk")
    }


def busy(app: str) -> dict[int, tuple[int, int]]:
    """Devices that belong to a rollout at work on this app: to which, and its priority."""
    rollouts = Rollout.objects.filter(app=app, state__in=AT_WORK)
    priority = {pk: int(rules.get("priority", 0)) for pk, rules in rollouts.values_list("pk", "strategy")}
    taken = Delivery.objects.filter(rollout__in=priority).exclude(state__in=_NOT_TAKING_PART)
    planned = PlanPart.objects.filter(rollout__in=priority).values_list("devices", "rollout_id")
    belongs = {device: rollout for devices, rollout in planned for device in devices}
    belongs |= dict(taken.values_list("device_id", "rollout_id"))
    return {device: (rollout, priority[rollout]) for device, rollout in belongs.items()}


def in_experiments(app: str, own: int | None = None) -> dict[int, tuple[str, int]]:
    """Devices that a running experiment on this app compares, and a priority that no rollout is above."""
    pairs = Pair.objects.filter(experiment__app=app, experiment__state=Experiment.State.RUNNING)
    rows = pairs.exclude(experiment=own).values_list("experiment", "device_a", "device_b")
    return {
        device: (f"experiment {experiment}", _ABOVE_ALL)
        for experiment, *devices in rows
        for device in devices
        if device is not None
    }


def room_of(device: Device, runs: Artifact | None, app: str, in_shadow: bool = False) -> Room:
    """What the device leaves an artifact in place of the present one; in the shadow that one stays beside it."""
    free = device.hello.get("heap_free")
    if not isinstance(free, int):
        return Room(None, device.target.latency_us)
    present = (_peak(runs) or 0) if runs is not None else 0
    # It counts its heap when it says hello: with the present artifact loaded, or before, or with that put aside.
    was_loaded = device.hello.get("apps", {}).get(app, {}).get("serving") is not False
    alone = free + present if was_loaded else free
    return Room(alone - present if in_shadow else alone, device.target.latency_us)


def _offer(artifact: Artifact, factors: Mapping[int, float]) -> Offer:
    facts = artifact.measurements
    test = facts.get("test_accuracy") or facts.get("accuracy") or {}
    return Offer(
        artifact.pk,
        artifact.sha256,
        artifact.bytes,
        blobs.bytes_to_install(artifact),
        _peak(artifact),
        _latency(artifact, factors),
        test.get("value"),
    )


def _latency(artifact: Artifact, factors: Mapping[int, float]) -> int | None:
    """Median in the field where it runs somewhere, or as estimated and corrected by what its target showed."""
    if artifact.target.latency_us is None:
        return None
    measured = summaries.recent_latency(artifact)
    if measured.n >= ENOUGH_INFERENCES and measured.p50_us is not None:
        return measured.p50_us
    estimated = artifact.measurements.get("estimated_latency_us")
    return None if estimated is None else round(estimated * factors.get(artifact.target_id, 1.0))


def _peak(artifact: Artifact) -> int | None:
    # What onnxruntime took on the host says nothing about a board.
    peak = None if artifact.format == "onnx" else artifact.measurements.get("peak_ram_bytes")
    return int(peak) if peak is not None else None
