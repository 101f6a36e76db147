"""Where a plan's tensors and windows lie in its arena."""

from compression_jobs.pipeline.graph import memory
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_windows import kernel_of
from device_agent.runtimes.plan import layout as p

ALIGNMENT = 4  # of tensors in the arena; kernels read bytes


def place(graph: q.QuantGraph) -> tuple[dict[str, int], int]:
    """Arena offset of each tensor and of each window that has to be gathered; and the size of the arena."""
    homes = _homes(graph)
    spans = {homes[name]: [0, 0] for name in graph.inputs}
    for moment, op in enumerate(graph.ops, start=1):
        spans.setdefault(homes[op.output], [moment, moment])
        for name in (*op.inputs, op.output):
            spans[homes[name]][1] = moment
    for name in graph.outputs:
        spans[homes[name]][1] = len(graph.ops) + 1
    buffers = [memory.Buffer(name, graph.tensors[name].size, *span) for name, span in spans.items()]
    for moment, op in enumerate(graph.ops, start=1):
        for index, size in _scratches(graph, op):
            buffers.append(memory.Buffer(scratch(op, index), size, moment, moment))
    placed = memory.plan(buffers, ALIGNMENT)
    offsets = {name: placed.offsets[home] for name, home in homes.items()}
    offsets |= {name: at for name, at in placed.offsets.items() if name not in graph.tensors}
    return offsets, placed.peak_bytes + p.SLACK


def _homes(graph: q.QuantGraph) -> dict[str, str]:
    """Whose memory each tensor uses: a reshaped tensor is the one it is made from."""
    homes = {name: name for name in graph.inputs}
    for op in graph.ops:
        homes[op.output] = homes[op.inputs[0]] if isinstance(op, q.Reshape) else op.output
    return homes


def scratch(op: q.Op, index: int = 0) -> str:
    """The name of a piece of memory that an operator needs while it runs."""
    return f"{op.output}:scratch {index}"


def _scratches(graph: q.QuantGraph, op: q.Op) -> list[tuple[int, int]]:
    """Number and bytes of each piece of memory that an operator needs while it runs."""
    if isinstance(op, q.Conv | q.DepthwiseConv) and not is_direct(op):
        height, width = kernel_of(op)
        return [(0, height * width * graph.tensor_of(op).shape[3])]
    if isinstance(op, q.Mul):
        target = graph.output_of(op)
        return [(i, target.size) for i in range(2) if graph.tensor_of(op, i).shape != target.shape]
    return []


def is_direct(op: q.Conv | q.DepthwiseConv) -> bool:
    """Whether a window is a run of bytes in the input already."""
    return kernel_of(op) == (1, 1) and not any(op.padding)
