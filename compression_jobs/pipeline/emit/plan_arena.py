"""Where the tensors of a plan lie in its arena: reshaped ones share their memory, some operators borrow some."""

from compression_jobs.pipeline.emit.plan_states import kept, starts_as_zeros
from compression_jobs.pipeline.graph import memory, quant_states
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_windows import kernel_of
from device_agent.runtimes.plan import layout as p

ALIGNMENT = 4  # of tensors in the arena; kernels read bytes


def place(graph: q.QuantGraph) -> tuple[dict[str, int], int]:
    """Arena offset of each tensor, state and window that has to be gathered; and the size of the arena."""
    homes, assignments = _homes(graph), quant_states.assignments(graph)
    end = len(graph.ops) + 1
    spans = {homes[name]: [0, 0] for name in (*graph.inputs, *(state.name for state in graph.states))}
    spans |= {kept(state): [0, end] for state in graph.states}
    for moment, op in enumerate(graph.ops, start=1):
        left = [state.next for state in assignments.get(op.output, ())]
        for name in (*op.inputs, op.output, *left):
            span = spans.setdefault(homes[name], [moment, moment])
            span[1] = max(moment, span[1])
    for name in graph.outputs:
        spans[homes[name]][1] = end
    sizes = {home: graph.tensors[name].size for name, home in homes.items()}
    sizes |= {kept(state): state.first.size for state in graph.states}
    buffers = [memory.Buffer(home, sizes[home], *span) for home, span in spans.items()]
    for moment, op in enumerate(graph.ops, start=1):
        buffers += [memory.Buffer(name, size, moment, moment) for name, size in _scratches(graph, op).items()]
    placed = memory.plan(buffers, ALIGNMENT)
    offsets = {name: placed.offsets[home] for name, home in homes.items()}
    offsets |= {name: at for name, at in placed.offsets.items() if name not in graph.tensors}
    return offsets, placed.peak_bytes + p.SLACK


def _homes(graph: q.QuantGraph) -> dict[str, str]:
    """Whose memory each tensor uses: a reshaped tensor is the one it is made from, a state that starts as zeros its place."""
    direct = {state.name: kept(state) for state in graph.states if starts_as_zeros(state)}
    written = {name: direct[state] for name, state in quant_states.in_place(graph).items() if state in direct}
    return quant_states.homes(graph, direct | written)


def scratch(op: q.Op, name: str) -> str:
    """What the memory is called in which an operator gathers one of its inputs."""
    return f"{name} for {op.output}"


def _scratches(graph: q.QuantGraph, op: q.Op) -> dict[str, int]:
    """Names and sizes of what an operator gathers first: a window, or a term or factor whose sizes of 1 are repeated."""
    if isinstance(op, q.Conv | q.DepthwiseConv) and not is_direct(op):
        height, width = kernel_of(op)
        return {scratch(op, op.inputs[0]): height * width * graph.tensor_of(op).shape[3]}
    if isinstance(op, q.Constant):
        return {scratch(op, "a byte"): 1}
    if isinstance(op, q.Add | q.Sub | q.Mul):
        target = graph.output_of(op)
        return {
            scratch(op, name): target.size for name in op.inputs if graph.tensors[name].shape != target.shape
        }
    return {}


def is_direct(op: q.Conv | q.DepthwiseConv) -> bool:
    """Whether a window is a run of bytes in the input already."""
    return kernel_of(op) == (1, 1) and not any(op.padding)
