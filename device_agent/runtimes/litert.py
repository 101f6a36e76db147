"""Runs TFLite models, int8 or float, with LiteRT on one thread unless told otherwise."""

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from device_agent.core import ports
from device_agent.runtimes.edges import Edge, check_signature, inputs_of, normalised, raw_inputs, raw_outputs


def open_interpreter(path: str, threads: int = 1) -> Any:
    """An interpreter of a model file with its tensors allocated."""
    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


class LiteRtRuntime(ports.Runtime):
    """One TFLite model with static shapes; scales come from the model itself."""

    name = "litert"
    format = "tflite"

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._path = ""
        self._interpreter: Any = None
        self.inputs: list[Edge] = []
        self.outputs: list[Edge] = []
        self._input_indices: list[int] = []
        self._output_indices: list[int] = []

    def fresh(self) -> "LiteRtRuntime":
        """Another empty runtime with the same number of threads."""
        return LiteRtRuntime(self._threads)

    def load(self, path: str, signature: dict[str, Any]) -> None:
        """Load a model; raises ValueError when it is not what the signature says."""
        self.unload()
        interpreter = open_interpreter(path, self._threads)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        input_edges = [_edge(d) for d in inputs]
        output_edges = [_edge(d) for d in outputs]
        check_signature(input_edges, signature.get("inputs"), "input")
        check_signature(output_edges, signature.get("outputs"), "output")
        input_edges = normalised(input_edges, signature.get("normalisation"))
        self._path, self._interpreter = path, interpreter
        self.inputs, self.outputs = input_edges, output_edges
        self._input_indices = [d["index"] for d in inputs]
        self._output_indices = [d["index"] for d in outputs]

    def unload(self) -> None:
        """Free the model."""
        self._interpreter, self.inputs, self.outputs = None, [], []

    def reset(self) -> None:
        """Forget what earlier runs have left: only a new interpreter gives resource variables their first values."""
        if self._interpreter is not None:
            self._interpreter = open_interpreter(self._path, self._threads)

    def run(self, x: object) -> list[Any]:
        """Flat real numbers of each output."""
        tensors = self._run(inputs_of(x, self.inputs))
        return [edge.to_numbers(t) for edge, t in zip(self.outputs, tensors, strict=True)]

    def run_raw(self, inputs: list[bytes]) -> list[Any]:
        """Raw output tensors for raw input tensors."""
        return raw_outputs(self._run(raw_inputs(inputs, self.inputs)))

    def _run(self, tensors: list[Any]) -> list[Any]:
        for index, tensor in zip(self._input_indices, tensors, strict=True):
            self._interpreter.set_tensor(index, tensor)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._output_indices]


def _edge(details: dict[str, Any]) -> Edge:
    scale, zero_point = details["quantization"]
    shape = tuple(int(d) for d in details["shape"])
    # A scale of 0 is how TFLite says that the tensor is not quantised.
    return Edge(details["name"], np.dtype(details["dtype"]), shape, float(scale) or None, int(zero_point))
