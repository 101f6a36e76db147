"""Whether the variables of a `.tflite`, which keep a state between runs, are sound: declared, read and assigned once.

A file declares them (VAR_HANDLE), gives them constants once in a subgraph of its own (CALL_ONCE), and reads and assigns
them in each run. Nothing else is accepted.
"""

from collections.abc import Iterator

from compression_jobs.pipeline.graph.tflite_reading import Node, Stored, TfliteModel

SHAPES = {"VAR_HANDLE": (0, 1), "READ_VARIABLE": (1, 1), "ASSIGN_VARIABLE": (2, 0)}  # inputs and outputs
REMEDY = "convert the model with variables that start as constants and are assigned once in each run"


def problems(model: TfliteModel) -> list[str]:
    """Everything about the variables of a file that no runtime should have to guess."""
    nodes = [node for node in model.nodes if node.kind in SHAPES]
    names = _handles(nodes)
    found = list(_of_operators(nodes, names))
    if not found:
        for name in dict.fromkeys(names.values()):
            touching = [node for node in nodes if node.inputs and names[node.inputs[0]] == name]
            found += _of_variable(model, name, touching)
    return found


def _handles(nodes: list[Node]) -> dict[int, str]:
    """The variable that each resource tensor stands for."""
    return {node.outputs[0]: node.variable for node in nodes if node.kind == "VAR_HANDLE" and node.outputs}


def _alike(one: Stored, other: Stored) -> bool:
    """Whether two tensors have one type, shape and scale."""
    return (one.dtype, one.shape, [*one.scales], [*one.zero_points]) == (
        other.dtype,
        other.shape,
        [*other.scales],
        [*other.zero_points],
    )


def _of_operators(nodes: list[Node], names: dict[int, str]) -> Iterator[str]:
    declared, assigned = set[int](), set[str]()
    for node in nodes:
        if (len(node.inputs), len(node.outputs)) != SHAPES[node.kind]:
            yield f"{node.label}: it has {len(node.inputs)} inputs and {len(node.outputs)} results"
        elif node.kind == "VAR_HANDLE":
            declared.add(node.outputs[0])
        elif node.inputs[0] not in declared:
            yield f"{node.label}: no VAR_HANDLE in front of it declares its variable"
        elif node.kind == "ASSIGN_VARIABLE":
            name = names[node.inputs[0]]
            if name in assigned:
                yield f"{node.label}: variable {name} is assigned twice in one run"
            assigned.add(name)


def _of_variable(model: TfliteModel, name: str, nodes: list[Node]) -> Iterator[str]:
    read = [model.tensors[node.outputs[0]] for node in nodes if node.kind == "READ_VARIABLE"]
    left = [model.tensors[node.inputs[1]] for node in nodes if node.kind == "ASSIGN_VARIABLE"]
    if read and not left:
        yield f"variable {name} is read and never assigned"
    first = [model.starts[name]] if name in model.starts else []
    if not all(_alike(each, other) for each in read for other in (*read, *left)):
        yield f"variable {name} is assigned with another shape, type or scale than it is read with"
    if not all(_alike(each, other) for each in read for other in first):
        yield f"variable {name} starts with another shape, type or scale than it is read with"
