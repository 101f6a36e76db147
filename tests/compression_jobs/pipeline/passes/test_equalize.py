"""Equalisation and bias correction rescue int8 with one scale a tensor, without any training or data."""

from itertools import pairwise

import numpy as np
import pytest

from compression_jobs.pipeline.graph.bias_correction import mean_error
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quant_reference import run_float
from compression_jobs.pipeline.graph.running import Reference
from compression_jobs.pipeline.passes.equalize import equalize
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import NoOptions, QuantizeOptions
from compression_jobs.pipeline.passes.quantize import quantize
from tests.compression_jobs.pipeline.nets import NETS, Net


def uneven(seed: int = 0) -> tuple[Graph, np.ndarray]:
    """Convolutions, one of them depthwise, whose channels have scales far apart."""
    net = Net(2, 8, 8, seed=seed).conv(2, 12, pads=[1, 1, 1, 1]).node("Relu")
    net.conv(12, 12, group=12, pads=[1, 1, 1, 1]).node("Relu").conv(12, 8, kernel=1).node("Relu")
    graph = net.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).reshape(1, 128).dense(128, 6).graph()
    layers = [node for node in graph.nodes if node.op_type == "Conv"]
    for first, second in pairwise(layers):
        scale = np.exp(net.chance.uniform(-2.5, 2.5, 12)).astype(np.float32)
        for name in first.input[1:]:
            value = graph.initializers[name]
            graph.set_initializer(name, value * scale.reshape(-1, *[1] * (value.ndim - 1)))
        read = graph.initializers[second.input[1]]
        axis = 0 if read.shape[1] == 1 else 1
        graph.set_initializer(
            second.input[1], read / scale.reshape([-1 if a == axis else 1 for a in range(4)])
        )
    return graph, net.rows(64)


def error(graph: Graph, rows: np.ndarray, source: Graph, **options: object) -> float:
    """How far int8 is from the original's answers, beside how far those are from their mean."""
    chosen = QuantizeOptions.model_validate({"granularity": "per_tensor", **options})
    made = run_float(quantize(graph, chosen, Material(rows, 0)), rows)
    wanted = np.concatenate([answers[0] for answers in Reference.of(source, rows).answers])
    return float(((made - wanted) ** 2).mean() / wanted.var(axis=0).mean())


@pytest.mark.parametrize("name", NETS)
def test_outputs_stay(name: str) -> None:
    net = NETS[name]()
    graph, rows = net.graph(), net.rows(8)
    done = equalize(graph, NoOptions(), Material(rows, 0))
    assert Reference.of(graph, rows).difference(done) is None
    assert not done.notes


def test_channels_far_apart_survive_one_scale_a_tensor() -> None:
    graph, rows = uneven()
    done = equalize(graph, NoOptions(), Material(rows, 0))
    assert error(done, rows, graph) < 0.1 * error(graph, rows, graph)
    assert error(done, rows, graph, data_free=True) < 0.1 * error(graph, rows, graph)


def test_bias_correction_takes_back_the_mean_error() -> None:
    net = Net(3, 6, 6).conv(3, 8).reshape(1, 128).dense(128, 5)
    graph, rows = net.graph(), np.abs(net.rows(64))
    shifts = []
    wanted = np.concatenate([answers[0] for answers in Reference.of(graph, rows).answers])
    for corrected in (False, True):
        options = QuantizeOptions(granularity="per_tensor", bias_correction=corrected)
        made = run_float(quantize(graph, options, Material(rows, 0)), rows)
        shifts.append(np.abs((made - wanted).mean(axis=0)).mean())
    assert shifts[1] < shifts[0] * 0.6


def test_the_mean_error_of_a_channel_is_what_rounding_adds() -> None:
    weights = np.array([[1.0, 0.3], [0.5, -0.2]])
    means = np.array([2.0, 1.0])
    step = 1.0 / 127
    rounded = np.rint(weights / step) * step
    np.testing.assert_allclose(mean_error(weights, means, "per_tensor"), (rounded - weights) @ means)
