"""Target rows: the presets of the pipeline, kept in step with the code, beside those that people make."""

from typing import Any

from django.db import IntegrityError, transaction
from pydantic import ValidationError as PydanticError

from compression_jobs.pipeline import targets as presets
from fleet.errors import Duplicate, Refused
from fleet.registry.models import Target

FIELDS = (
    "name",
    "runtime",
    "chip",
    "clock_hz",
    "flash_total_bytes",
    "ram_total_bytes",
    "flash_bytes",
    "ram_bytes",
    "source",
    "subtraction",
    "latency_us",
    "chunk_bytes",
)


def sync_targets() -> None:
    """Write every preset to its row; a target that a person made under the same slug stays theirs."""
    rows = Target.objects.in_bulk(field_name="slug")
    for slug, preset in presets.TARGETS.items():
        wanted = columns(preset)
        row = rows.get(slug)
        if row is None:
            Target.objects.get_or_create(slug=slug, defaults={**wanted, "is_preset": True})
        elif row.is_preset and any(getattr(row, name) != value for name, value in wanted.items()):
            Target.objects.filter(pk=row.pk).update(**wanted)


def columns(target: presets.Target) -> dict[str, Any]:
    """The columns of the row of a pipeline target."""
    plain = target.model_dump(mode="json")
    return {name: plain[name] for name in FIELDS}


def pipeline_target(row: Target) -> presets.Target:
    """The target as the pipeline knows it; its free flash and RAM follow from the subtraction."""
    return presets.Target.model_validate(
        {
            "slug": row.slug,
            **{name: getattr(row, name) for name in FIELDS if name not in ("flash_bytes", "ram_bytes")},
        }
    )


def create_target(**fields: Any) -> Target:
    """A target that a person describes; free flash and RAM follow from its totals and what is subtracted."""
    slug, runtime = fields["slug"], fields["runtime"]
    chunk_bytes = presets.CHUNK_BYTES_MICROPYTHON if runtime == "micropython" else presets.CHUNK_BYTES_LINUX
    try:
        target = presets.Target.model_validate({**fields, "chunk_bytes": chunk_bytes})
    except PydanticError as error:
        problems = [each["msg"].removeprefix("Value error, ") for each in error.errors()]
        raise Refused(f"target {slug!r} is not valid: {'; '.join(problems)}", problems=problems) from None
    try:
        with transaction.atomic():
            return Target.objects.create(slug=slug, **columns(target))
    except IntegrityError:
        raise Duplicate(f"there is a target {slug} already", remedy="Choose another slug.") from None
