"""The growing plan file: operators with their words by name, and weights, aligned."""

import struct

import numpy as np

from compression_jobs.pipeline.emit.plan_arena import place
from compression_jobs.pipeline.emit.plan_states import UNSIGNED
from compression_jobs.pipeline.graph import quantgraph as q
from device_agent.runtimes.plan import layout as p
from device_agent.runtimes.plan.words import WITHOUT_STATE, WORDS


class Writer:
    """Collects operators and weights; offsets of tensors and scratch come from the memory planner."""

    def __init__(self, graph: q.QuantGraph) -> None:
        self.graph = graph
        self.operators: list[tuple[int, dict[str, int]]] = []
        self.weights = bytearray()
        self.offsets, self.arena_bytes = place(graph)

    def add(self, kind: int, **words: int) -> None:
        """One operator with its words by name."""
        self.operators.append((kind, words))

    def store(self, data: bytes) -> int:
        """Append weights, aligned for 32-bit loads, and return where they start."""
        self.weights += bytes(-len(self.weights) % 4)
        start = len(self.weights)
        self.weights += data
        return start

    def finish(self) -> bytes:
        """The file."""
        graph = self.graph
        edges = b"".join(self._edge(name) for name in (*graph.inputs, *graph.outputs))
        operators = b"".join(_operator(kind, words) for kind, words in self.operators)
        end = p.HEADER_BYTES + len(edges) + len(operators)
        start = end + -end % 16
        sizes = (len(self.operators), self.arena_bytes, start, len(self.weights))
        version = p.VERSION if graph.states else WITHOUT_STATE
        head = struct.pack(p.HEADER, p.MAGIC, version, *sizes, len(graph.inputs), len(graph.outputs))
        return head + edges + operators + bytes(start - end) + bytes(self.weights)

    def _edge(self, name: str) -> bytes:
        tensor = self.graph.tensors[name]
        zero = tensor.zero_point + UNSIGNED
        return struct.pack(p.EDGE, self.offsets[name], tensor.size, zero, np.float32(tensor.scale))


def _operator(kind: int, words: dict[str, int]) -> bytes:
    names = WORDS[kind]
    assert set(words) == set(names), set(words) ^ set(names)
    values = [int(words[name]) for name in names]
    return struct.pack(p.OPERATOR, kind, len(values)) + struct.pack(f"<{len(values)}I", *values)
