"""Makes one artifact: the model through the passes of a recipe and an emitter; runs inside a limited child."""

import hashlib
from pathlib import Path
from typing import Any

from compression_jobs.pipeline import beside, ready, transport
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.emit.table import EMITTERS, Emitter
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.costs import parameters, total_macs
from compression_jobs.pipeline.graph.facts_tflite import is_tflite
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.quant_islands import LEFT
from compression_jobs.pipeline.graph.quantgraph import Island, QuantGraph
from compression_jobs.pipeline.graph.rewrites.structure import keep_scores
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.table import PASSES
from compression_jobs.pipeline.recipe import Recipe, Step
from compression_jobs.pipeline.stages import STEPS_FILE, Bench, Stages, Told, step_seed

SAMPLE_ROWS = 8
EVENED = (
    "features of very different sizes do not fit one int8 scale: signature.json says by which mean and std the agent "
    "brings them to one before it rounds; other programs must do the same"
)


def make(
    model: Path,
    dataset: Path,
    steps: list[dict[str, Any]],
    runtime: str,
    folder: Path,
    seed: int,
    stages: Path | None = None,
    others: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """Write the artifact into `folder` and return its facts.

    What training makes is kept in `stages` and shared by recipes that begin alike. Training steps done are told
    in the file `steps` of `folder`. `others` are the models that options name.
    """
    recipe = Recipe.model_validate({"steps": steps})
    data = Dataset.load(dataset)
    calibration, _ = data.rows("calibration")
    if is_tflite(model):
        made = ready.carry(model, recipe, runtime)
    else:
        graph = canonicalise(model, calibration[:SAMPLE_ROWS])
        left_out = _without_labels(graph, recipe)
        models = {name: Path(path) for name, path in (others or {}).items()}
        kept = Stages.of(stages, model, data, seed, models)
        bench = Bench(recipe, seed, data, graph, Told(folder / STEPS_FILE), kept, models)
        made = _compressed(bench, runtime, left_out)
    beside.write(folder, made.normalisation)
    return {
        **_written(made.data, recipe, runtime, folder, Material(calibration, seed)),
        "parameters": made.parameters,
        "macs": made.macs,
        "output": made.output,
        "normalisation": made.normalisation,
        "notes": list(made.notes),
        "steps": _seeded(recipe, seed),
    }


def _seeded(recipe: Recipe, seed: int) -> list[dict[str, Any]]:
    return [
        {**step.as_dict(), "seed": step_seed(seed, recipe, position)}
        for position, step in enumerate(recipe.steps)
    ]


def _without_labels(graph: Graph, recipe: Recipe) -> tuple[str, ...]:
    """Leave the scores as the only output of a model that is trained or quantised; a note when others went."""
    if not (recipe.trains or recipe.quantizes):
        return ()
    before = [port.name for port in graph.outputs]
    keep_scores(graph)
    [kept, *_] = [port.name for port in graph.outputs]
    gone = ", ".join(name for name in before if name != kept)
    return (f"{kept} is the only output; {gone} is left out",) if len(before) > 1 else ()


def _compressed(bench: Bench, runtime: str, notes: tuple[str, ...]) -> ready.Made:
    final = bench.run()
    emitter = EMITTERS[runtime]
    data = _emit(emitter, final, runtime)
    evened = bench.normalisation
    if evened is not None and emitter.format == "onnx":
        data, evened = evened.in_front_of(data), None
    said = (EVENED,) if evened is not None else ()
    return ready.Made(
        data,
        _parameters(final),
        total_macs(bench.graph) or 0,
        _output_scale(final),
        (*notes, *said, *_notes(final, bench.recipe)),
        None if evened is None else evened.as_dict(),
    )


def _written(data: bytes, recipe: Recipe, runtime: str, folder: Path, material: Material) -> dict[str, Any]:
    """Write the artifact, and the form in which it travels; the facts of both."""
    emitter = EMITTERS[runtime]
    (folder / emitter.file_name).write_bytes(data)
    sent = _encoded(recipe, data, emitter.format, material)
    (folder / transport.FILE).write_bytes(sent.data)
    return {
        "file": emitter.file_name,
        "format": emitter.format,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "transport": sent.as_dict(),
    }


def _emit(emitter: Emitter, final: Graph | QuantGraph, runtime: str) -> bytes:
    if isinstance(final, QuantGraph):
        return emitter.quantized(final)
    if emitter.real is None:
        raise Refused(f"{runtime} runs int8 models only", remedy="add a quantize step to the recipe")
    return emitter.real(final)


def _encoded(recipe: Recipe, data: bytes, format: str, material: Material) -> transport.Transport:
    step = recipe.encoding or Step(name="encode")
    sent: transport.Transport = PASSES[step.name].apply((data, format), step.checked_options(), material)
    return sent


def _parameters(final: Graph | QuantGraph) -> int:
    if isinstance(final, QuantGraph):
        return final.parameters
    return parameters(final)


def _notes(final: Graph | QuantGraph, recipe: Recipe) -> tuple[str, ...]:
    """What the passes are good for, and what was left in float."""
    said = dict.fromkeys(PASSES[step.name].good_for for step in recipe.steps)
    return (*filter(None, said), *(_island_notes(final) if isinstance(final, QuantGraph) else ()))


def _island_notes(final: QuantGraph) -> tuple[str, ...]:
    islands = [op for op in final.ops if isinstance(op, Island)]
    chosen = [op.name for op in islands if LEFT in op.reason]
    others = [op for op in islands if LEFT not in op.reason]
    kinds = ", ".join(sorted({node.op_type for op in others for node in op.nodes}))
    said = []
    if chosen:
        said.append(f"left in float, as the recipe says: {', '.join(chosen)}")
    if others:
        count = f"{len(others)} of {len(final.ops)} operators"
        said.append(f"{count} have no int8 form and are left to onnxruntime: {kinds}")
    return tuple(said)


def _output_scale(final: Graph | QuantGraph) -> dict[str, Any] | None:
    if not isinstance(final, QuantGraph):
        return None
    tensor = final.tensors[final.outputs[0]]
    return {"scale": tensor.scale, "zero_point": tensor.zero_point}
