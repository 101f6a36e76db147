"""Quantised graphs of one operator with random shapes, and the four networks of MLPerf Tiny."""

from collections.abc import Callable
from functools import cache

import numpy as np

from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_build import build
from compression_jobs.pipeline.graph.quant_calibrate import calibrate
from tests.compression_jobs.pipeline.mlperf_tiny import MODELS

Chance = np.random.Generator
Graph = tuple[q.QuantGraph, np.ndarray]
ROWS = 3
FUNCTIONS: tuple[q.Function, ...] = ("logistic", "tanh", "leaky_relu", "hard_swish", "requantize")


def tensor(chance: Chance, name: str, shape: tuple[int, ...], like: q.Tensor | None = None) -> q.Tensor:
    if like is not None:
        return q.Tensor(name, shape, like.scale, like.zero_point)
    return q.Tensor(
        name, shape, float(np.float32(chance.uniform(0.005, 0.2))), int(chance.integers(-128, 128))
    )


def picture(chance: Chance, name: str = "x") -> q.Tensor:
    return tensor(chance, name, (1, *(int(n) for n in chance.integers(1, 10, 3))))


def activation(chance: Chance) -> q.Activation:
    return ("none", "relu", "relu6")[chance.integers(3)]


def weights(
    chance: Chance, shape: tuple[int, ...], axis: int, source: q.Tensor, target_scale: float
) -> q.Weights:
    """Weights that spread the outputs over the whole range."""
    channels, fan_in = shape[axis], int(np.prod(shape)) // shape[axis]
    spread = target_scale / source.scale / (40 * fan_in**0.5) * chance.uniform(0.3, 2, channels)
    scales = np.float32(spread[: channels if chance.integers(2) else 1]).astype(np.float64)
    bias = chance.integers(-5000, 5000, channels).astype(np.int32)
    return q.Weights(chance.integers(-127, 128, shape).astype(np.int8), scales, bias)


def one(chance: Chance, op: q.Op, *tensors: q.Tensor) -> Graph:
    names = [t.name for t in tensors if t.name != "y"]
    graph = q.QuantGraph({t.name: t for t in tensors}, [op], names, ["y"])
    size = sum(graph.tensors[name].size for name in names)
    rows = chance.integers(-128, 128, (ROWS, size)).astype(np.int8)
    rows[1] = chance.choice(np.array([-128, 127], np.int8), size)
    return graph, rows


def window(chance: Chance, x: q.Tensor, dilated: bool) -> tuple[q.Pair, q.Pair, q.Padding, q.Pair, q.Pair]:
    """Kernel, stride, padding, dilation and the size of the result."""
    while True:
        kernel, stride, dilation = (tuple(map(int, chance.integers(1, n, 2))) for n in (5, 4, 3))
        dilation = dilation if dilated else (1, 1)
        padding = tuple(int(chance.integers(0, kernel[i % 2])) for i in range(4))
        sizes = [
            (x.shape[1 + i] + padding[i] + padding[i + 2] - (kernel[i] - 1) * dilation[i] - 1) // stride[i]
            + 1
            for i in range(2)
        ]
        # As in TFLite's SAME, every window of a pool holds more than padding.
        starts = [(sizes[i] - 1) * stride[i] - padding[i] < x.shape[1 + i] for i in range(2)]
        if min(sizes) > 0 and all(starts):
            return kernel, stride, padding, dilation, (sizes[0], sizes[1])


def conv(chance: Chance, flat: bool = False) -> Graph:
    x = picture(chance)
    if flat:
        x = tensor(chance, "x", (1, 1, *x.shape[2:]))
    kernel, stride, padding, dilation, size = window(chance, x, True)
    channels = int(chance.integers(1, 12))
    y = tensor(chance, "y", (1, *size, channels))
    if flat and kernel[0] > 1:
        kernel, padding, y = (
            (1, kernel[1]),
            (0, padding[1], 0, padding[3]),
            tensor(chance, "y", (1, 1, size[1], channels)),
        )
    w = weights(chance, (channels, *kernel, x.shape[3]), 0, x, y.scale)
    return one(chance, q.Conv("op", ("x",), "y", w, activation(chance), stride, padding, dilation), x, y)


def conv_1d(chance: Chance) -> Graph:
    return conv(chance, flat=True)


def depthwise(chance: Chance) -> Graph:
    x = picture(chance)
    kernel, stride, padding, dilation, size = window(chance, x, True)
    channels = x.shape[3] * int(chance.integers(1, 4))
    y = tensor(chance, "y", (1, *size, channels))
    w = weights(chance, (1, *kernel, channels), 3, x, y.scale)
    return one(
        chance, q.DepthwiseConv("op", ("x",), "y", w, activation(chance), stride, padding, dilation), x, y
    )


def dense(chance: Chance) -> Graph:
    x, y = (tensor(chance, name, (1, int(chance.integers(1, 50)))) for name in "xy")
    w = weights(chance, (y.size, x.size), 0, x, y.scale)
    return one(chance, q.FullyConnected("op", ("x",), "y", w, activation(chance)), x, y)


def add(chance: Chance) -> Graph:
    a = picture(chance, "a")
    b, y = tensor(chance, "b", a.shape), tensor(chance, "y", a.shape)
    return one(chance, q.Add("op", ("a", "b"), "y", activation(chance)), a, b, y)


def mul(chance: Chance) -> Graph:
    a = picture(chance, "a")
    repeated = tuple(1 if chance.integers(3) == 0 else size for size in a.shape)
    b, y = tensor(chance, "b", repeated), tensor(chance, "y", a.shape)
    return one(chance, q.Mul("op", ("a", "b"), "y", activation(chance)), a, b, y)


def pool(chance: Chance) -> Graph:
    x = picture(chance)
    kernel, stride, padding, _, size = window(chance, x, False)
    mode = ("average", "max")[chance.integers(2)]
    y = tensor(chance, "y", (1, *size, x.shape[3]), x)
    return one(chance, q.Pool("op", ("x",), "y", mode, kernel, stride, padding), x, y)


def mean(chance: Chance) -> Graph:
    x = picture(chance)
    return one(chance, q.Mean("op", ("x",), "y"), x, tensor(chance, "y", (1, x.shape[3])))


def softmax(chance: Chance) -> Graph:
    x = tensor(chance, "x", (1, int(chance.integers(1, 4)), int(chance.integers(1, 70))))
    x = q.Tensor("x", x.shape, float(np.float32(10 ** chance.uniform(-4, 1))), x.zero_point)
    y = q.Tensor("y", x.shape, q.SOFTMAX_SCALE, q.SOFTMAX_ZERO_POINT)
    return one(chance, q.Softmax("op", ("x",), "y"), x, y)


def lookup(chance: Chance) -> Graph:
    x = picture(chance)
    function: q.Function = chance.choice(FUNCTIONS)
    y = tensor(chance, "y", x.shape)
    y = q.Tensor("y", y.shape, *q.FIXED_SCALES.get(function, (y.scale, y.zero_point)))
    return one(chance, q.LookUp("op", ("x",), "y", function, 0.1), x, y)


def clamp(chance: Chance) -> Graph:
    x = picture(chance)
    return one(chance, q.Clamp("op", ("x",), "y", activation(chance)), x, tensor(chance, "y", x.shape, x))


def pad(chance: Chance) -> Graph:
    x, padding = picture(chance), tuple(map(int, chance.integers(0, 4, 4)))
    shape = (1, x.shape[1] + padding[0] + padding[2], x.shape[2] + padding[1] + padding[3], x.shape[3])
    return one(chance, q.Pad("op", ("x",), "y", padding), x, tensor(chance, "y", shape, x))


def concat(chance: Chance) -> Graph:
    x, axis = picture(chance, "a"), int(chance.integers(1, 4))
    sizes = [int(n) for n in chance.integers(1, 6, chance.integers(1, 4))]
    parts = [
        tensor(chance, name, (*x.shape[:axis], size, *x.shape[axis + 1 :]), x)
        for name, size in zip("abc", sizes, strict=False)
    ]
    y = tensor(chance, "y", (*x.shape[:axis], sum(sizes), *x.shape[axis + 1 :]), x)
    return one(chance, q.Concat("op", tuple(t.name for t in parts), "y", axis), *parts, y)


def reshape(chance: Chance) -> Graph:
    x = picture(chance)
    return one(chance, q.Reshape("op", ("x",), "y"), x, tensor(chance, "y", (1, x.size), x))


def transpose(chance: Chance) -> Graph:
    x, order = picture(chance), (0, *(int(n) + 1 for n in chance.permutation(3)))
    shape = tuple(x.shape[axis] for axis in order)
    return one(chance, q.Transpose("op", ("x",), "y", order), x, tensor(chance, "y", shape, x))


OPERATORS: dict[str, Callable[[Chance], Graph]] = {
    made.__name__: made
    for made in (conv, conv_1d, depthwise, dense, add, mul, pool, mean, softmax, lookup, clamp, pad)
} | {"concat": concat, "reshape": reshape, "transpose": transpose}


def cases(name: str, count: int) -> list[Graph]:
    """`count` random graphs of one operator that the quantised graph itself finds no fault with."""
    chance, found = np.random.default_rng(sum(name.encode())), []
    while len(found) < count:
        graph, rows = OPERATORS[name](chance)
        if not graph.problems():
            found.append((graph, rows))
    return found


def expected(graph: q.QuantGraph, rows: np.ndarray) -> np.ndarray:
    """The reference's answer to raw rows, as raw rows; several inputs lie one after the other."""
    ends = np.cumsum([graph.tensors[name].size for name in graph.inputs])
    parts = np.split(rows, ends[:-1], axis=1)
    inputs = {
        name: part.reshape(len(rows), *graph.tensors[name].shape[1:])
        for name, part in zip(graph.inputs, parts, strict=True)
    }
    return quant_reference.run(graph, inputs)[graph.outputs[0]].reshape(len(rows), -1)


@cache
def network(name: str) -> Graph:
    """A network with random weights, quantised on random rows, and rows for it."""
    net = MODELS[name]()
    graph, rows = net.graph(), net.rows(6)
    built = build(graph, calibrate(graph, rows, "minmax", 99.9), "per_channel")
    stored = quant_reference.quantize(rows[:2], built.tensors[built.inputs[0]])
    return built, stored.reshape(2, -1)
