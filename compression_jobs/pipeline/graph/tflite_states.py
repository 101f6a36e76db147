"""Variables of a `.tflite`, which one run leaves to the next, become states of the QuantGraph.

A file declares them (VAR_HANDLE), gives them constants once in a subgraph of its own (CALL_ONCE), and reads and assigns
them in each run. Nothing else is accepted: no variable that is assigned twice, none that is read and never assigned.
"""

from collections.abc import Callable

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.tflite_importer import Importer, UnsupportedError
from compression_jobs.pipeline.graph.tflite_reading import Node, Stored


def _declare(importer: Importer, node: Node) -> None:
    if len(node.outputs) != 1:
        raise UnsupportedError(f"it has {len(node.outputs)} results")
    importer.variables.handles[node.outputs[0]] = node.variable
    importer.names[node.outputs[0]] = ""  # what is read from it takes its name


def _read(importer: Importer, node: Node) -> None:
    name, variables = _named(importer, node, 1), importer.variables
    if len(node.outputs) != 1 or importer.names[node.outputs[0]] in importer.graph.tensors:
        raise UnsupportedError("what it reads is written twice")
    index = node.outputs[0]
    known = variables.assigned.get(name) or variables.read.get(name)
    if known is None:
        importer.names[index] = name if name not in importer.names else f"{name}#{index}"
        variables.read[name] = importer.define(index)
        return
    if not _alike(importer.model.tensors[index], known):
        raise UnsupportedError(
            f"{name} has another shape or scale where it is read than where it is assigned"
        )
    importer.names[index] = known.name


def _assign(importer: Importer, node: Node) -> None:
    name, variables = _named(importer, node, 2), importer.variables
    if name in variables.assigned:
        raise UnsupportedError(f"{name} is assigned twice in one run")
    variables.assigned[name] = importer.source(node, 1)


def _named(importer: Importer, node: Node, inputs: int) -> str:
    name = importer.variables.handles.get(node.inputs[0]) if node.inputs else None
    if name is None or len(node.inputs) != inputs:
        raise UnsupportedError("no VAR_HANDLE in front of it declares its variable")
    return name


def finish(importer: Importer) -> list[str]:
    """Turn the variables that a run reads before it assigns them into states. Returns the problems."""
    problems = []
    for name, read in importer.variables.read.items():
        left, first = importer.variables.assigned.get(name), importer.model.starts.get(name)
        if left is None:
            problems.append(f"variable {name} is read and never assigned")
        elif first is not None and (first.values is None or not _alike(first, read)):
            problems.append(f"variable {name} starts with another shape, type or scale than it is read with")
        elif left.shape != read.shape or not left.same_scale(read):
            problems.append(f"variable {name} is assigned with another shape or scale than it is read with")
        else:
            # A variable without a first value starts in TFLM as what stands for zeros.
            zeros = np.full(read.shape, read.zero_point, np.int8)
            stored = zeros if first is None or first.values is None else first.values
            importer.graph.states.append(q.State(read.name, _made(importer, left, name), stored))
    return problems


def _alike(stored: Stored, tensor: q.Tensor) -> bool:
    same = (stored.dtype, stored.shape) == ("int8", tensor.shape)
    return same and [*stored.scales, *stored.zero_points] == [tensor.scale, tensor.zero_point]


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
