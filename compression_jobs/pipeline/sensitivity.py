"""The sensitivity analysis by a name that a limited child can be given without loading torch here."""

from pathlib import Path
from typing import Any


def analyse(model: Path, dataset: Path) -> dict[str, Any]:
    """What each layer can spare; see `passes.sensitivity.layer_effects`."""
    from compression_jobs.pipeline.passes.sensitivity import layer_effects

    return layer_effects(model, dataset)
