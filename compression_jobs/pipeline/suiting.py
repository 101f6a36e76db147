"""Whether a target can run a model at all, found out by making its int8 form: what `inspect --target` shows.

Ranges come from calibration rows, or from random ones without data: sizes and refusals do not depend on them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from compression_jobs.pipeline import ready
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.emit.table import EMITTERS
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.costs import total_macs
from compression_jobs.pipeline.graph.facts_tflite import is_tflite
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.quant_memory import micro_head_bytes
from compression_jobs.pipeline.graph.rewrites.structure import keep_scores
from compression_jobs.pipeline.latency import estimate_us
from compression_jobs.pipeline.passes.kinds import SAMPLE_ROWS, Material
from compression_jobs.pipeline.passes.options import FEWEST_ROWS, QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.targets import Target

Facts = dict[str, Any]


def suits(model: Path, dataset: Path | None, target: dict[str, Any]) -> Facts:
    """What the int8 form of a model would take on a target, and what keeps it from running there; for a limited child.

    `{"runs": bool, "problems": [...], "int8": {bytes, activation_bytes, estimated_latency_us, too_large} | None}`.
    """
    place = Target.model_validate(target)
    try:
        return _small_form(model, dataset, place)
    except Refused as error:
        # onnxruntime runs an ONNX file that has no int8 form, too, as it is.
        return {
            "runs": place.runtime == "onnxruntime" and not is_tflite(model),
            "problems": error.problems or [str(error)],
            "int8": None,
        }


def _small_form(model: Path, dataset: Path | None, target: Target) -> Facts:
    if is_tflite(model):
        made = ready.carry(model, parse_recipe(["keep"]), target.runtime)
        activations = None if target.runtime == "onnxruntime" else ready.memory_of(model)
        return _facts(len(made.data), activations, made.macs, target)
    rows = np.zeros(0, np.float32) if dataset is None else Dataset.load(dataset).rows("calibration")[0]
    graph = canonicalise(model, rows[:SAMPLE_ROWS] if len(rows) else None)
    keep_scores(graph)
    options = QuantizeOptions(data_free=len(rows) < FEWEST_ROWS)
    small = quantize(graph, options, Material(rows, 0))
    data = EMITTERS[target.runtime].quantized(small)
    # onnxruntime keeps its activations where it likes.
    activations = None if target.runtime == "onnxruntime" else micro_head_bytes(small)
    return _facts(len(data), activations, total_macs(graph) or 0, target)


def _facts(size: int, activations: int | None, macs: int, target: Target) -> Facts:
    needs = (("flash", size, target.flash_bytes), ("RAM", activations or 0, target.ram_bytes))
    small = {
        "bytes": size,
        "activation_bytes": activations,
        "estimated_latency_us": estimate_us(target, macs, quantized=True),
        "too_large": [
            f"{what}: {need} bytes needed, {free} free" for what, need, free in needs if need > free
        ],
    }
    return {"runs": True, "problems": [], "int8": small}
