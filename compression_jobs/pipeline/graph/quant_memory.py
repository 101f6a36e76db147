"""Where the activations of a QuantGraph lie in one arena, and how large it must be."""

from dataclasses import replace

from compression_jobs.pipeline.graph import quant_states
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.memory import Buffer, plan
from compression_jobs.pipeline.graph.quant_windows import Windowed, padded_shape, padding_name

SUM_BYTES = 4


def buffers(graph: q.QuantGraph) -> list[Buffer]:
    """The lifetime of every activation in order of creation; a state is one from where it is read first.

    Constants lie with the weights.
    """
    constants = {op.output for op in graph.ops if isinstance(op, q.Constant)}
    first = dict.fromkeys(graph.inputs, 0)
    last = dict(first)
    assignments = quant_states.assignments(graph)
    for moment, op in enumerate(graph.ops, start=1):
        for name in (*op.inputs, op.output):
            first.setdefault(name, moment)
        kept = [state.next for state in assignments.get(op.output, ())]
        last.update(dict.fromkeys([*op.inputs, op.output, *kept], moment))
    last.update(dict.fromkeys(graph.outputs, len(graph.ops)))
    return [
        Buffer(name, graph.tensors[name].size, moment, last[name])
        for name, moment in first.items()
        if name not in constants
    ]


def micro_head_bytes(graph: q.QuantGraph) -> int:
    """What TensorFlow Lite Micro records as the head of its arena: all activations and what kernels borrow.

    States are kept behind it, in memory of their own (`QuantGraph.state_bytes`); the head has copies while they are read.
    """
    spelled = _with_pads(graph)
    sums = [
        Buffer(f"{op.output}:sums", SUM_BYTES * spelled.output_of(op).size, moment, moment)
        for moment, op in enumerate(spelled.ops, start=1)
        if isinstance(op, q.Mean)
    ]
    return plan([*buffers(spelled), *sums]).peak_bytes


def _with_pads(graph: q.QuantGraph) -> q.QuantGraph:
    """The graph with an operator of its own for each padding that has no name in a `.tflite`."""
    made = q.QuantGraph(dict(graph.tensors), [], graph.inputs, graph.outputs, graph.states)
    for op in graph.ops:
        if isinstance(op, Windowed) and padding_name(graph, op) is None:
            source = graph.tensor_of(op)
            padded = q.Tensor(
                f"{op.name}:padded", padded_shape(source.shape, op.padding), source.scale, source.zero_point
            )
            made.tensors[padded.name] = padded
            made.ops.append(q.Pad(padded.name, (source.name,), padded.name, op.padding))
            op = replace(op, inputs=(padded.name,), padding=(0, 0, 0, 0))
        made.ops.append(op)
    return made


def shared(graph: q.QuantGraph) -> dict[str, str]:
    """For each tensor the one whose memory it takes: the same bytes under another shape need no copy.

    Inputs and outputs of the graph are the caller's, and keep memory of their own.
    """
    owner = {name: name for name in graph.tensors} | quant_states.in_place(graph)
    edges = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        if isinstance(op, q.Reshape) and not edges & {op.inputs[0], op.output}:
            owner[op.output] = owner[op.inputs[0]]
    return owner


def inner_plan(graph: q.QuantGraph) -> tuple[dict[str, int], int]:
    """Offsets of all tensors but inputs, outputs and states, and the size of their arena; reshaped ones share theirs."""
    owner, lives = shared(graph), {buffer.name: buffer for buffer in buffers(graph)}
    elsewhere = {*graph.inputs, *graph.outputs, *(state.name for state in graph.states)}
    joined: dict[str, Buffer] = {}
    for name, buffer in lives.items():
        if owner[name] in elsewhere:
            continue
        known = joined.get(owner[name], buffer)
        joined[owner[name]] = Buffer(
            owner[name], buffer.size_bytes, known.first, max(known.last, buffer.last)
        )
    placed = plan(joined.values())
    offsets = {name: placed.offsets[owner[name]] for name in lives if owner[name] in placed.offsets}
    return offsets, placed.peak_bytes
