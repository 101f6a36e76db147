"""Variables of a `.tflite`, which one run leaves to the next, become states of the QuantGraph.

That they are sound is checked by `tflite_variables`; what was named there is passed over here.
"""

from collections.abc import Callable

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.tflite_importer import Importer, PoisonedError
from compression_jobs.pipeline.graph.tflite_reading import Node


def _declare(importer: Importer, node: Node) -> None:
    for index in node.outputs:
        importer.variables.handles[index] = node.variable
        importer.names[index] = ""  # what is read from it takes its name


def _read(importer: Importer, node: Node) -> None:
    name, variables = _named(importer, node), importer.variables
    known = variables.assigned.get(name) or variables.read.get(name)
    for index in node.outputs:
        if known is not None and importer.names[index] not in importer.graph.tensors:
            importer.names[index] = known.name
        else:
            if importer.names[index] not in importer.graph.tensors:
                importer.names[index] = name if name not in importer.names else f"{name}#{index}"
            variables.read[name] = importer.define(index)


def _assign(importer: Importer, node: Node) -> None:
    name = _named(importer, node)
    importer.variables.assigned[name] = importer.source(node, 1)


def _named(importer: Importer, node: Node) -> str:
    name = importer.variables.handles.get(node.inputs[0]) if node.inputs else None
    if name is None:
        raise PoisonedError
    return name


def add_states(importer: Importer) -> None:
    """Turn the variables that a run reads before it assigns them into states."""
    for name, read in importer.variables.read.items():
        left, first = importer.variables.assigned.get(name), importer.model.starts.get(name)
        if left is not None:
            # A variable without a first value starts in TFLM as what stands for zeros.
            zeros = np.full(read.shape, read.zero_point, np.int8)
            stored = zeros if first is None or first.values is None else first.values
            importer.graph.states.append(q.State(read.name, _made(importer, left, name), stored))


def _made(importer: Importer, tensor: q.Tensor, variable: str) -> str:
    """A tensor with bytes of its own that an operator makes: what is kept may be an input or another state."""
    graph = importer.graph
    if any(op.output == tensor.name and not isinstance(op, q.Reshape) for op in graph.ops):
        return tensor.name
    copy = importer.between(tensor, tensor.shape, f"for {variable}")
    nothing = (0,) * len(tensor.shape)
    importer.add(q.Slice(copy.name, (tensor.name,), copy.name, nothing, (1,) * len(nothing)))
    return copy.name


# What CALL_ONCE calls was read with the file.
SET_UP = "CALL_ONCE"
HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    "VAR_HANDLE": _declare,
    "READ_VARIABLE": _read,
    "ASSIGN_VARIABLE": _assign,
}
