"""Models that a recipe names beside the one it compresses: students and teachers, as `model/version`."""

from typing import Any

from compression_jobs.pipeline.recipe import parse_recipe
from fleet.errors import Conflict, Refused
from fleet.registry.models import CheckState, ModelVersion
from fleet.registry.services import get_version


def named_models(recipe: list[dict[str, Any]] | None) -> dict[str, ModelVersion]:
    """By name; raises Refused for a name of another form, NotFound for no such version, Conflict for one not ready."""
    return {} if recipe is None else {name: _version(name) for name in parse_recipe(recipe).models_named}


def _version(name: str) -> ModelVersion:
    slug, _, number = name.rpartition("/")
    if not slug or not number.isdecimal() or len(number) > 9:
        raise Refused(f"{name} names no version", remedy="Write it as model/version, such as digits/3.")
    version = get_version(slug, int(number))
    if version.state != CheckState.READY or version.format != "onnx":
        raise Conflict(
            f"{name} is not ready", remedy="Students and teachers are ONNX models that passed the check."
        )
    return version
