"""Our memory planner gives the arena that TensorFlow Lite Micro itself records."""

import re
import subprocess
import sys
from math import prod

import pytest

from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.graph.memory import Buffer, peak_activation_bytes, plan
from tests.compression_jobs.pipeline.graph.models import build, conv_net, save, weights
from tests.compression_jobs.pipeline.graph.tflite_models import random_network, write

# Networks whose arena would be another if buffers of equal size were placed in the other order.
TIES_MATTER = (23, 28, 31, 33, 34, 47, 52, 53)

# In a process of its own: TFLM aborts on what it does not like, and prints its record to file descriptor 2 only.
RECORD = """
import struct, sys
from tflite_micro.python.tflite_micro import runtime
stream = sys.stdin.buffer
while size := stream.read(4):
    content = stream.read(struct.unpack("<I", size)[0])
    runtime.Interpreter.from_bytes(content, arena_size=1 << 20).print_allocations()
"""


def recorded_heads(models):
    content = b"".join(len(model).to_bytes(4, "little") + model for model in models)
    done = subprocess.run([sys.executable, "-c", RECORD], input=content, capture_output=True, check=True)
    return [int(size) for size in re.findall(rb"Arena allocation head (\d+)", done.stderr)]


def our_head(shapes, operators, inputs, outputs):
    first, last = dict.fromkeys(inputs, 0), dict.fromkeys(inputs, 0)
    for moment, (_, read, made, _) in enumerate(operators, start=1):
        first.update(dict.fromkeys(made, moment))
        last.update(dict.fromkeys([*read, *made], moment))
    last.update(dict.fromkeys(outputs, len(operators)))
    return plan(Buffer(str(i), 4 * prod(shapes[i]), first[i], last[i]) for i in first).peak_bytes


def test_the_planner_equals_tflm():
    pytest.importorskip("tflite_micro")
    networks = [random_network(seed) for seed in (*range(8), *TIES_MATTER)]
    assert [our_head(*network) for network in networks] == recorded_heads(
        [write(*network) for network in networks]
    )


def test_buffers_that_live_together_never_overlap():
    buffers = [Buffer(str(i), (i * 37) % 100 + 1, i, i + i % 4) for i in range(40)]
    offsets = plan(buffers).offsets
    for one in buffers:
        for other in buffers:
            if one.name < other.name and one.meets(other):
                low, high = sorted((one, other), key=lambda buffer: offsets[buffer.name])
                assert offsets[low.name] + low.size_bytes <= offsets[high.name]


def test_the_peak_of_a_graph_counts_what_lives_at_once(tmp_path):
    graph = canonicalise(save(tmp_path, conv_net()), weights(2, 2, 6, 6))
    # The widest moment is Relu: 4 channels of 6 x 6 read and written.
    assert peak_activation_bytes(graph) == 2 * 4 * 36 * 4
    assert peak_activation_bytes(graph, item_bytes=1) == 2 * 4 * 36


def test_a_skip_connection_keeps_its_source(tmp_path):
    nodes = [
        ("Relu", ["x"], ["a"], {}),
        ("Sigmoid", ["a"], ["b"], {}),
        ("Tanh", ["b"], ["c"], {}),
        ("Add", ["a", "c"], ["y"], {}),
    ]
    graph = Graph(build(nodes, inputs=(("x", (1, 16)),), outputs=(("y", (1, 16)),)))
    assert peak_activation_bytes(graph) == 3 * 64
