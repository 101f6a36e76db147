"""Which emitters write an artifact for which runtime."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from compression_jobs.pipeline.emit import plan, qdq_onnx, tflite
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quantgraph import QuantGraph


@dataclass(frozen=True)
class Emitter:
    """How one runtime takes quantised graphs, and float ones where it can run them."""

    format: str
    file_name: str
    quantized: Callable[[QuantGraph], bytes]
    real: Callable[[Graph], bytes] | None


EMITTERS: dict[str, Emitter] = {
    "onnxruntime": Emitter("onnx", "model.onnx", qdq_onnx.emit, Graph.to_bytes),
    "litert": Emitter("tflite", "model.tflite", tflite.emit, None),
    "micropython": Emitter("plan", "model.plan", plan.emit, None),
    "tflite-micro": Emitter("tflite", "model.tflite", tflite.emit, None),
}

# What `convert --to` names -> the function that writes it; imported when asked for.
FORMS: dict[str, str] = {
    "onnx": "compression_jobs.pipeline.emit.qdq_onnx:emit",
    "tflite": "compression_jobs.pipeline.emit.tflite:emit",
    "plan": "compression_jobs.pipeline.emit.plan:emit",
    "c": "compression_jobs.pipeline.emit.c_source:emit",
}


def write_form(graph: QuantGraph, form: str) -> bytes:
    """The file of a quantised graph in one of `FORMS`."""
    module, _, name = FORMS[form].partition(":")
    emit: Callable[[QuantGraph], bytes] = getattr(importlib.import_module(module), name)
    return emit(graph)
