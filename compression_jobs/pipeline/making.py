"""Makes one artifact: the model through the passes of a recipe and an emitter; runs inside a limited child."""

import hashlib
import json
from pathlib import Path
from typing import Any

from compression_jobs.pipeline import ready
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.emit.table import EMITTERS, Emitter
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.costs import parameters, total_macs
from compression_jobs.pipeline.graph.facts_tflite import is_tflite
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.quantgraph import QuantGraph
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.table import PASSES
from compression_jobs.pipeline.recipe import Recipe

SAMPLE_ROWS = 8


def make(
    model: Path, dataset: Path, steps: list[dict[str, Any]], runtime: str, folder: Path, seed: int
) -> dict[str, Any]:
    """Write the artifact into `folder` and return its facts."""
    recipe = Recipe.model_validate({"steps": steps})
    if is_tflite(model):
        return ready.make(model, recipe, runtime, folder)
    calibration, _ = Dataset.load(dataset).rows("calibration")
    graph = canonicalise(model, calibration[:SAMPLE_ROWS])
    final, macs = _apply(recipe, graph, calibration, seed)
    emitter = EMITTERS[runtime]
    data = _emit(emitter, final, runtime)
    (folder / emitter.file_name).write_bytes(data)
    return {
        "file": emitter.file_name,
        "format": emitter.format,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": _parameters(final),
        "macs": macs,
        "output": _output_scale(final),
        "steps": [
            {**step.as_dict(), "seed": step_seed(seed, recipe, position)}
            for position, step in enumerate(recipe.steps)
        ],
    }


def step_seed(seed: int, recipe: Recipe, position: int) -> int:
    """The seed of one step: from the job's seed and the path of steps up to it."""
    path = json.dumps([seed, recipe.as_list()[: position + 1]], sort_keys=True)
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "little")


def _apply(recipe: Recipe, graph: Graph, calibration: Any, seed: int) -> tuple[Graph | QuantGraph, int]:
    subject: Any = graph
    for position, step in enumerate(recipe.steps):
        material = Material(calibration, step_seed(seed, recipe, position))
        subject = PASSES[step.name].apply(subject, step.checked_options(), material)
        if isinstance(subject, Graph):
            graph = subject
    return subject, total_macs(graph) or 0


def _emit(emitter: Emitter, final: Graph | QuantGraph, runtime: str) -> bytes:
    if isinstance(final, QuantGraph):
        return emitter.quantized(final)
    if emitter.real is None:
        raise Refused(f"{runtime} runs int8 models only", remedy="add a quantize step to the recipe")
    return emitter.real(final)


def _parameters(final: Graph | QuantGraph) -> int:
    if isinstance(final, QuantGraph):
        return final.parameters
    return parameters(final)


def _output_scale(final: Graph | QuantGraph) -> dict[str, Any] | None:
    if not isinstance(final, QuantGraph):
        return None
    tensor = final.tensors[final.outputs[0]]
    return {"scale": tensor.scale, "zero_point": tensor.zero_point}
