"""Which emitters write an artifact for which runtime."""

from collections.abc import Callable
from dataclasses import dataclass

from compression_jobs.pipeline.emit import plan, qdq_onnx
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
    "micropython": Emitter("plan", "model.plan", plan.emit, None),
}
