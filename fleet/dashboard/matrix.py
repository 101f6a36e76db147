"""Targets x artifacts of one version: what each needs of its budget, and which targets have none."""

from dataclasses import dataclass
from typing import Any

from fleet.registry.models import Artifact, ModelVersion, Target


@dataclass(frozen=True)
class Row:
    """The newest artifact of one target, beside its budget."""

    target: Target
    artifact: Artifact
    older: int

    @property
    def figures(self) -> dict[str, Any]:
        """What was measured."""
        return dict(self.artifact.measurements)

    @property
    def accuracy(self) -> dict[str, Any] | None:
        """On test rows when they were looked at, else on validation rows."""
        return self.figures.get("test_accuracy") or self.figures.get("accuracy")

    @property
    def split(self) -> str:
        """The rows that the accuracy stands on."""
        return "test rows" if self.figures.get("test_accuracy") else "validation rows"

    @property
    def fits_flash(self) -> bool:
        """Whether the file fits into the flash that is left."""
        return self.artifact.bytes <= self.target.flash_bytes

    @property
    def fits_ram(self) -> bool:
        """Whether the peak fits into the RAM that is left."""
        return (self.figures.get("peak_ram_bytes") or 0) <= self.target.ram_bytes


def matrix(version: ModelVersion) -> tuple[list[Row], list[Target]]:
    """One row a target that has an artifact, and the targets without one."""
    newest: dict[int, Artifact] = {}
    numbers: dict[int, int] = {}
    for artifact in version.artifacts.select_related("target").order_by("created_at", "pk"):
        numbers[artifact.target_id] = numbers.get(artifact.target_id, -1) + 1
        newest[artifact.target_id] = artifact
    rows = [Row(a.target, a, numbers[a.target_id]) for a in newest.values()]
    missing = Target.objects.exclude(pk__in=newest)
    return sorted(rows, key=lambda row: row.target.slug), list(missing)
