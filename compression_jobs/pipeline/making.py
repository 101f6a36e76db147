"""Makes one artifact: the model through the passes of a recipe and an emitter; runs inside a limited child."""

import hashlib
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
from compression_jobs.pipeline.recipe import Recipe
from compression_jobs.pipeline.stages import STEPS_FILE, Bench, Stages, Told, step_seed

SAMPLE_ROWS = 8


def make(
    model: Path,
    dataset: Path,
    steps: list[dict[str, Any]],
    runtime: str,
    folder: Path,
    seed: int,
    stages: Path | None = None,
) -> dict[str, Any]:
    """Write the artifact into `folder` and return its facts.

    What training makes is kept in `stages` and shared by recipes that begin alike. Training steps done are told
    in the file `steps` of `folder`.
    """
    recipe = Recipe.model_validate({"steps": steps})
    if is_tflite(model):
        return ready.make(model, recipe, runtime, folder)
    data = Dataset.load(dataset)
    calibration, _ = data.rows("calibration")
    graph = canonicalise(model, calibration[:SAMPLE_ROWS])
    bench = Bench(recipe, seed, data, graph, Told(folder / STEPS_FILE), Stages.of(stages, model, data, seed))
    final = bench.run()
    emitter = EMITTERS[runtime]
    data_bytes = _emit(emitter, final, runtime)
    (folder / emitter.file_name).write_bytes(data_bytes)
    return {
        "file": emitter.file_name,
        "format": emitter.format,
        "bytes": len(data_bytes),
        "sha256": hashlib.sha256(data_bytes).hexdigest(),
        "parameters": _parameters(final),
        "macs": total_macs(bench.graph) or 0,
        "output": _output_scale(final),
        "steps": [
            {**step.as_dict(), "seed": step_seed(seed, recipe, position)}
            for position, step in enumerate(recipe.steps)
        ],
    }


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
