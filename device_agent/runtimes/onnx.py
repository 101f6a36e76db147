"""Runs ONNX models with onnxruntime, on one thread unless told otherwise."""

from typing import Any

import numpy as np
import onnxruntime

from device_agent.core import ports
from device_agent.runtimes.edges import Edge, check_signature, inputs_of, raw_inputs, raw_outputs

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def session_options(threads: int = 1) -> Any:
    """The options every artifact runs with, on devices and when the server measures a candidate."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # The arena keeps the largest memory it ever needed; a device has better uses for it.
    options.enable_cpu_mem_arena = False
    # ARM runs int8 activations in integer kernels by default, x64 most of them in float32; a server must
    # measure what the devices compute.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.log_severity_level = 3
    return options


def open_session(path: str, threads: int = 1) -> Any:
    """An inference session of a model file on the processor."""
    return onnxruntime.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])


class OnnxRuntime(ports.Runtime):
    """One ONNX model with static shapes."""

    name = "onnxruntime"
    format = "onnx"

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._session: Any = None
        self.inputs: list[Edge] = []
        self.outputs: list[Edge] = []

    def fresh(self) -> "OnnxRuntime":
        """Another empty runtime with the same number of threads."""
        return OnnxRuntime(self._threads)

    def load(self, path: str, signature: dict[str, Any]) -> None:
        """Load a model; raises ValueError for free dimensions or one that is not what the signature says."""
        self.unload()
        session = open_session(path, self._threads)
        inputs = _edges(session.get_inputs(), signature.get("inputs"), "input")
        outputs = _edges(session.get_outputs(), signature.get("outputs"), "output")
        self._session, self.inputs, self.outputs = session, inputs, outputs

    def unload(self) -> None:
        """Free the model."""
        self._session, self.inputs, self.outputs = None, [], []

    def run(self, x: object) -> list[Any]:
        """Flat real numbers of each output."""
        tensors = self._run(inputs_of(x, self.inputs))
        return [edge.to_numbers(t) for edge, t in zip(self.outputs, tensors, strict=True)]

    def run_raw(self, inputs: list[bytes]) -> list[Any]:
        """Raw output tensors for raw input tensors."""
        return raw_outputs(self._run(raw_inputs(inputs, self.inputs)))

    def _run(self, tensors: list[Any]) -> list[Any]:
        named = {edge.name: tensor for edge, tensor in zip(self.inputs, tensors, strict=True)}
        return list(self._session.run(None, named))


def _edges(nodes: list[Any], specs: Any, what: str) -> list[Edge]:
    edges = [
        _edge(node, (specs[i] if specs and i < len(specs) else {}), what) for i, node in enumerate(nodes)
    ]
    check_signature(edges, specs, what)
    return edges


def _edge(node: Any, spec: dict[str, Any], what: str) -> Edge:
    if node.type not in _DTYPES:
        raise ValueError(f"{what} {node.name} is a {node.type}, which the agent cannot hand over")
    if not all(isinstance(d, int) and d > 0 for d in node.shape):
        raise ValueError(
            f"{what} {node.name} has free dimensions {node.shape}; devices run static shapes, batch 1"
        )
    dtype = np.dtype(_DTYPES[node.type])
    # Only an integer edge stands for something else; a dequantised output has a scale for the self-test's sake.
    scale = spec.get("scale") if dtype.kind in "iu" else None
    return Edge(node.name, dtype, tuple(node.shape), scale, spec.get("zero_point") or 0)
