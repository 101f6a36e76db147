"""Where activations lie in one arena: TensorFlow Lite Micro's GreedyMemoryPlanner, and its peak.

Source: tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc. Buffers are placed largest first, ties
the later-created first, each in the first gap between those already placed that live at the same time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from compression_jobs.pipeline.graph.costs import activation_bytes
from compression_jobs.pipeline.graph.graph import Graph

ALIGNMENT = 16


@dataclass(frozen=True)
class Buffer:
    """A piece of memory needed from operator `first` to operator `last`, both included."""

    name: str
    size_bytes: int
    first: int
    last: int

    def meets(self, other: "Buffer") -> bool:
        """Whether both are needed at the same time."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """The offset of every buffer in the arena, and the arena's size."""

    offsets: dict[str, int]
    peak_bytes: int


def plan(buffers: Iterable[Buffer], alignment: int = ALIGNMENT) -> Plan:
    """Place the buffers, given in order of creation, as TFLM's planner does."""
    given = [Buffer(b.name, _aligned(b.size_bytes, alignment), b.first, b.last) for b in buffers]
    order = sorted(range(len(given)), key=lambda index: (-given[index].size_bytes, -index))
    placed: list[tuple[int, Buffer]] = []
    offsets: dict[str, int] = {}
    for buffer in (given[index] for index in order):
        offset = _first_gap([(at, other) for at, other in placed if other.meets(buffer)], buffer.size_bytes)
        placed.append((offset, buffer))
        offsets[buffer.name] = offset
    return Plan(offsets, max((at + buffer.size_bytes for at, buffer in placed), default=0))


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _first_gap(neighbours: list[tuple[int, Buffer]], size: int) -> int:
    """The lowest offset at which `size` bytes fit between the neighbours."""
    offset = 0
    for at, other in sorted(neighbours, key=lambda pair: pair[0]):
        if at - offset >= size:
            break
        offset = max(offset, at + other.size_bytes)
    return offset


def activation_buffers(graph: Graph, item_bytes: int | None = None) -> list[Buffer]:
    """The lifetime of every activation in order of creation; TFLM gives reshaped tensors memory of their own."""
    first = {port.name: 0 for port in graph.inputs}
    last = dict(first)
    for moment, node in enumerate(graph.nodes, start=1):
        made = [name for name in node.output if name]
        first.update(dict.fromkeys(made, moment))
        last.update(dict.fromkeys([*made, *(name for name in node.input if name in first)], moment))
    last.update(dict.fromkeys(graph.output_names.intersection(first), len(graph.nodes)))
    sizes = activation_bytes(graph, item_bytes)
    return [Buffer(name, sizes[name], moment, last[name]) for name, moment in first.items()]


def peak_activation_bytes(graph: Graph, item_bytes: int | None = None) -> int:
    """The arena that the activations of a canonical graph need; `item_bytes=1` for int8."""
    return plan(activation_buffers(graph, item_bytes)).peak_bytes
