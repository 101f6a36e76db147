"""Graphs of one operator with random shapes, scales, zero points and weights."""

from collections.abc import Callable

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_windows import same_padding

Chance = np.random.Generator


def scale(chance: Chance, low: float, high: float) -> float:
    return float(np.float32(np.exp(chance.uniform(np.log(low), np.log(high)))))


def tensor(
    chance: Chance, name: str, shape: tuple[int, ...], low: float = 0.01, high: float = 0.1
) -> q.Tensor:
    return q.Tensor(name, shape, scale(chance, low, high), int(chance.integers(-128, 128)))


def size(chance: Chance, low: int, high: int) -> int:
    return int(chance.integers(low, high + 1))


def activation(chance: Chance) -> q.Activation:
    choices: tuple[q.Activation, ...] = ("none", "relu", "relu6")
    return choices[size(chance, 0, 2)]


def graph(sources: list[q.Tensor], target: q.Tensor, op: q.Op) -> q.QuantGraph:
    tensors = {each.name: each for each in [*sources, target]}
    return q.QuantGraph(tensors, [op], list(dict.fromkeys(op.inputs)), [target.name])


def weights(chance: Chance, shape: tuple[int, ...], axis: int) -> q.Weights:
    channels = shape[axis]
    count = channels if chance.random() < 0.7 else 1
    scales = np.float32(chance.uniform(0.001, 0.01, count)).astype(np.float64)
    values = chance.integers(-127, 128, shape).astype(np.int8)
    return q.Weights(values, scales, chance.integers(-3000, 3000, channels).astype(np.int32))


def convolution(chance: Chance, depthwise: bool = False, signal: bool = False) -> q.QuantGraph:
    kernel = size(chance, 1, 1 if signal else 4), size(chance, 1, 4)
    stride = size(chance, 1, 3), size(chance, 1, 3)
    dilation = (size(chance, 1, 2), size(chance, 1, 2)) if stride == (1, 1) else (1, 1)
    padding = tuple(size(chance, 0, 0 if signal and i % 2 == 0 else 2) for i in range(4))
    height = 1 if signal else size(chance, 7, 10)
    source = tensor(chance, "x", (1, height, size(chance, 7, 10), size(chance, 1, 5)))
    spread = [(kernel[i] - 1) * dilation[i] + 1 for i in range(2)]
    out = [(source.shape[1 + i] + padding[i] + padding[2 + i] - spread[i]) // stride[i] + 1 for i in range(2)]
    channels = source.shape[3] * size(chance, 1, 2) if depthwise else size(chance, 1, 6)
    shape = (1, *kernel, channels) if depthwise else (channels, *kernel, source.shape[3])
    kind = q.DepthwiseConv if depthwise else q.Conv
    target = tensor(chance, "y", (1, *out, channels), 0.05, 0.3)
    made = weights(chance, shape, kind.channel_axis)
    return graph(
        [source], target, kind("op", ("x",), "y", made, activation(chance), stride, padding, dilation)
    )


def dense(chance: Chance) -> q.QuantGraph:
    inputs, outputs = size(chance, 1, 70), size(chance, 1, 20)
    source, target = tensor(chance, "x", (1, inputs)), tensor(chance, "y", (1, outputs), 0.05, 0.4)
    made = weights(chance, (outputs, inputs), 0)
    return graph([source], target, q.FullyConnected("op", ("x",), "y", made, activation(chance)))


def arithmetic(chance: Chance, kind: type[q.Add] | type[q.Sub] | type[q.Mul]) -> q.QuantGraph:
    shape = (1, size(chance, 1, 5), size(chance, 1, 5), size(chance, 1, 9))
    other = shape
    if kind is q.Mul and chance.random() < 0.5:
        other = (1, 1, 1, shape[3])
    sources = [tensor(chance, "a", shape), tensor(chance, "b", other)]
    low = 0.002 if kind is q.Mul else 0.02
    target = tensor(chance, "y", shape, low, low * 10)
    return graph(sources, target, kind("op", ("a", "b"), "y", activation(chance)))


def pool(chance: Chance, average: bool) -> q.QuantGraph:
    kernel, stride = (size(chance, 1, 3), size(chance, 1, 3)), (size(chance, 1, 3), size(chance, 1, 3))
    source = tensor(chance, "x", (1, size(chance, 4, 9), size(chance, 4, 9), size(chance, 1, 5)))
    padding = kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1] // 2
    if average:  # padding that is not SAME would count
        same = same_padding((source.shape[1], source.shape[2]), kernel, stride, (1, 1))
        padding = same if chance.random() < 0.5 else (0, 0, 0, 0)
    out = [(source.shape[1 + i] + padding[i] + padding[2 + i] - kernel[i]) // stride[i] + 1 for i in range(2)]
    target = q.Tensor("y", (1, *out, source.shape[3]), source.scale, source.zero_point)
    return graph(
        [source], target, q.Pool("op", ("x",), "y", "average" if average else "max", kernel, stride, padding)
    )


def mean(chance: Chance) -> q.QuantGraph:
    source = tensor(chance, "x", (1, size(chance, 1, 9), size(chance, 1, 9), size(chance, 1, 9)))
    shape = (1, 1, 1, source.shape[3]) if chance.random() < 0.5 else (1, source.shape[3])
    target = q.Tensor("y", shape, source.scale * scale(chance, 0.3, 1.5), size(chance, -128, 127))
    return graph([source], target, q.Mean("op", ("x",), "y"))


def concat(chance: Chance) -> q.QuantGraph:
    axis, shape = size(chance, 1, 3), [1, *(size(chance, 1, 5) for _ in range(3))]
    first = tensor(chance, "a", tuple(shape))
    shape[axis] += 2
    second = q.Tensor("b", tuple(shape), first.scale, first.zero_point)
    shape[axis] += first.shape[axis]
    target = q.Tensor("y", tuple(shape), first.scale, first.zero_point)
    return graph([first, second], target, q.Concat("op", ("a", "b"), "y", axis))


def pad(chance: Chance) -> q.QuantGraph:
    source = tensor(chance, "x", (1, size(chance, 1, 5), size(chance, 1, 5), size(chance, 1, 5)))
    top, left, bottom, right = (size(chance, 0, 3) for _ in range(4))
    shape = (1, source.shape[1] + top + bottom, source.shape[2] + left + right, source.shape[3])
    target = q.Tensor("y", shape, source.scale, source.zero_point)
    return graph([source], target, q.Pad("op", ("x",), "y", (top, left, bottom, right)))


def reshape(chance: Chance) -> q.QuantGraph:
    source = tensor(chance, "x", (1, size(chance, 2, 5), size(chance, 2, 5), size(chance, 2, 5)))
    target = q.Tensor("y", (1, source.size), source.scale, source.zero_point)
    return graph([source], target, q.Reshape("op", ("x",), "y"))


def transpose(chance: Chance) -> q.QuantGraph:
    source = tensor(chance, "x", (1, size(chance, 2, 5), size(chance, 2, 5), size(chance, 2, 5)))
    order = (0, *(int(axis) + 1 for axis in chance.permutation(3)))
    shape = tuple(source.shape[axis] for axis in order)
    target = q.Tensor("y", shape, source.scale, source.zero_point)
    return graph([source], target, q.Transpose("op", ("x",), "y", order))


def clamp(chance: Chance) -> q.QuantGraph:
    source = tensor(chance, "x", (1, 40))
    target = q.Tensor("y", source.shape, source.scale, source.zero_point)
    kind: q.Activation = "relu" if chance.random() < 0.5 else "relu6"
    return graph([source], target, q.Clamp("op", ("x",), "y", kind))


def softmax(chance: Chance) -> q.QuantGraph:
    source = tensor(chance, "x", (1, size(chance, 1, 3), size(chance, 2, 12)), 0.001, 0.5)
    target = q.Tensor("y", source.shape, q.SOFTMAX_SCALE, q.SOFTMAX_ZERO_POINT)
    return graph([source], target, q.Softmax("op", ("x",), "y"))


def look_up(chance: Chance, function: q.Function) -> q.QuantGraph:
    source = tensor(chance, "x", (1, 256), 0.001, 0.3)
    fixed = q.FIXED_SCALES.get(function, (source.scale * scale(chance, 0.2, 5), size(chance, -128, 127)))
    alpha = scale(chance, 0.01, 1.5) if function == "leaky_relu" else 0.0
    target = q.Tensor("y", source.shape, *fixed)
    return graph([source], target, q.LookUp("op", ("x",), "y", function, alpha))


def _functions(function: q.Function) -> Callable[[Chance], q.QuantGraph]:
    return lambda chance: look_up(chance, function)


def taken(chance: Chance) -> q.QuantGraph:
    rank = size(chance, 2, 4)
    source = tensor(chance, "x", (1, *(size(chance, 1, 9) for _ in range(rank - 1))))
    starts = (0, *(size(chance, 0, length - 1) for length in source.shape[1:]))
    steps = (1, *(size(chance, 1, 3) for _ in starts[1:]))
    shape = tuple(
        size(chance, 1, (length - start - 1) // step + 1)
        for length, start, step in zip(source.shape, starts, steps, strict=True)
    )
    return graph([source], like(source, "y", shape), q.Slice("op", ("x",), "y", starts, steps))


def like(other: q.Tensor, name: str, shape: tuple[int, ...]) -> q.Tensor:
    return q.Tensor(name, shape, other.scale, other.zero_point)


def first_value(chance: Chance, read: q.Tensor) -> np.ndarray:
    """All the lowest, all alike, or two runs of equal numbers."""
    values = np.full(read.size, [-128, chance.integers(-128, 128)][size(chance, 0, 1)])
    if chance.random() < 0.3:
        values[: size(chance, 0, read.size)] = chance.integers(-128, 128)
    return values.astype(np.int8).reshape(read.shape)


def enlarged(chance: Chance) -> q.QuantGraph:
    source = tensor(chance, "x", (1, *(size(chance, 1, 5) for _ in range(3))))
    factors = size(chance, 1, 3), size(chance, 1, 3)
    _, height, width, channels = source.shape
    target = like(source, "y", (1, height * factors[0], width * factors[1], channels))
    return graph([source], target, q.Enlarge("op", ("x",), "y", factors))


def broadcast(chance: Chance) -> q.QuantGraph:
    """A sum, difference or product with a constant, of one number or one a channel, on either side."""
    kind = (q.Add, q.Sub, q.Mul)[size(chance, 0, 2)]
    shape = (1, size(chance, 1, 4), size(chance, 1, 4), size(chance, 1, 9))
    source, low = tensor(chance, "x", shape), 0.002 if kind is q.Mul else 0.02
    fixed = tensor(chance, "c", [shape, (1, 1, 1, shape[3]), (1, 1, 1, 1)][size(chance, 0, 2)])
    target = tensor(chance, "y", shape, low, low * 10)
    sides = ("x", "c") if chance.random() < 0.5 else ("c", "x")
    made = graph([source, fixed], target, kind("op", sides, "y", activation(chance)))
    made.inputs = ["x"]
    values = chance.integers(-128, 128, fixed.shape).astype(np.int8)
    made.ops.insert(0, q.Constant("fixed", (), "c", values))
    return made


def window(chance: Chance) -> q.QuantGraph:
    """The last rows of a stream, as streaming layers keep them."""
    kept, fresh, channels = size(chance, 1, 6), size(chance, 1, 3), size(chance, 1, 5)
    source = tensor(chance, "x", (1, fresh, 1, channels))
    read, left = (like(source, name, (1, kept, 1, channels)) for name in ("s", "left"))
    joined = like(source, "joined", (1, kept + fresh, 1, channels))
    made = graph([source, read, left], joined, q.Concat("join", ("s", "x"), "joined", 1))
    made.ops.append(q.Slice("keep", ("joined",), "left", (0, fresh, 0, 0), (1, 1, 1, 1)))
    made.inputs.remove("s")
    made.states.append(q.State("s", "left", first_value(chance, read)))
    return made


def delay(chance: Chance) -> q.QuantGraph:
    """What came two runs ago: a state that takes over another one, read before and behind that."""
    shape = (1, size(chance, 1, 40))
    source, target = tensor(chance, "x", shape), tensor(chance, "y", shape, 0.05, 0.3)
    names = ("old", "older", "old left", "older left")
    tensors = {name: like(source, name, shape) for name in names} | {"x": source, "y": target}
    nothing = {"starts": (0, 0), "steps": (1, 1)}
    ops = [
        q.Slice("keep x", ("x",), "old left", **nothing),
        q.Slice("keep old", ("old",), "older left", **nothing),
        q.Add("op", ("older", "x"), "y", activation(chance)),
    ]
    pairs = (("old", "old left"), ("older", "older left"))
    states = [q.State(read, left, first_value(chance, tensors[read])) for read, left in pairs]
    return q.QuantGraph(tensors, ops, ["x"], ["y"], states)


OPERATORS: dict[str, Callable[[Chance], q.QuantGraph]] = {
    "conv": convolution,
    "depthwise": lambda chance: convolution(chance, depthwise=True),
    "conv 1-D": lambda chance: convolution(chance, signal=True),
    "dense": dense,
    "add": lambda chance: arithmetic(chance, q.Add),
    "sub": lambda chance: arithmetic(chance, q.Sub),
    "mul": lambda chance: arithmetic(chance, q.Mul),
    "max": lambda chance: pool(chance, average=False),
    "average": lambda chance: pool(chance, average=True),
    "mean": mean,
    "concat": concat,
    "pad": pad,
    "reshape": reshape,
    "transpose": transpose,
    "slice": taken,
    "enlarge": enlarged,
    "broadcast": broadcast,
    "window": window,
    "delay": delay,
    "clamp": clamp,
    "softmax": softmax,
    "logistic": _functions("logistic"),
    "tanh": _functions("tanh"),
    "leaky relu": _functions("leaky_relu"),
    "hard swish": _functions("hard_swish"),
    "requantize": _functions("requantize"),
}


def rows(made: q.QuantGraph, chance: Chance, count: int) -> dict[str, np.ndarray]:
    """Random stored inputs; every stored value occurs where there is room."""
    found = {}
    for name in made.inputs:
        shape = made.tensors[name].shape
        values = chance.integers(-128, 128, (count, *shape[1:]))
        values.reshape(-1)[:256] = np.arange(-128, 128)[: values.size]
        found[name] = values.astype(np.int8)
    return found
