"""When and where the states of a QuantGraph take over the bytes that the next run reads."""

from collections.abc import Mapping

from compression_jobs.pipeline.graph import quantgraph as q


def homes(graph: q.QuantGraph, elsewhere: Mapping[str, str] | None = None) -> dict[str, str]:
    """Whose bytes each tensor has: its own, unless `elsewhere` says other ones.

    A reshaped tensor has those of the tensor that it is made from.
    """
    given = elsewhere or {}
    found = {name: given.get(name, name) for name in (*graph.inputs, *(state.name for state in graph.states))}
    for op in graph.ops:
        own = given.get(op.output, op.output)
        found[op.output] = found[op.inputs[0]] if isinstance(op, q.Reshape) else own
    return found


def assignments(graph: q.QuantGraph) -> dict[str, list[q.State]]:
    """The states to assign behind each operator, by its output: nobody reads their old bytes any more."""
    places, found = homes(graph), dict[str, list[q.State]]()
    for state in graph.states:
        moment = max(_made(graph, state.next), _last_read(graph, places, state.name))
        found.setdefault(graph.ops[moment].output, []).append(state)
    return found


def in_place(graph: q.QuantGraph) -> dict[str, str]:
    """Tensors that an operator may write straight into a state: its old bytes are not read any more by then."""
    places, found = homes(graph), dict[str, str]()
    for state in graph.states:
        made = _made(graph, state.next)
        free = _last_read(graph, places, state.name) < made and not isinstance(graph.ops[made], q.Constant)
        if free and state.next not in (*graph.outputs, *found):
            found[state.next] = state.name
    return found


def _made(graph: q.QuantGraph, name: str) -> int:
    return next(moment for moment, op in enumerate(graph.ops) if op.output == name)


def _last_read(graph: q.QuantGraph, places: dict[str, str], name: str) -> int:
    """The last operator that reads the bytes of a tensor, also under other shapes; -1 when none does."""
    readers = [
        moment for moment, op in enumerate(graph.ops) if any(places[source] == name for source in op.inputs)
    ]
    return max(readers, default=-1)
