"""The growing QuantGraph: which ONNX tensors it holds, in which order, and at which scale.

ONNX keeps channels second, the QuantGraph last. Each ONNX tensor is therefore held in one or both of two
orders, and is brought to the other one only when an operator asks for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.graph import Array, Graph, attributes
from compression_jobs.pipeline.graph.quant_ranges import Range, affine
from compression_jobs.pipeline.graph.quant_weights import Granularity, quantize_weights
from compression_jobs.pipeline.graph.rewrites.layers import clip_bounds

Order = Literal["onnx", "channels_last"]
Scale = tuple[float, int]

AXES: dict[Order, tuple[int, ...]] = {"channels_last": (0, 2, 3, 1), "onnx": (0, 3, 1, 2)}


class UnsupportedError(Exception):
    """The node cannot be quantised; the text says why."""


class PoisonedError(Exception):
    """An input comes from a node that was refused already."""


@dataclass
class Builder:
    """The growing QuantGraph beside the ONNX graph that it is made from."""

    graph: Graph
    ranges: Mapping[str, Range]
    granularity: Granularity
    result: q.QuantGraph = field(default_factory=lambda: q.QuantGraph({}, [], [], []))
    held: dict[tuple[str, Order], str] = field(default_factory=dict)
    flattened: dict[str, str] = field(default_factory=dict)  # reshaped ONNX tensor -> where it came from
    done: set[str] = field(default_factory=set)  # names of nodes that were fused into an earlier one

    def __post_init__(self) -> None:
        self.shapes = self.graph.shapes

    # Questions

    def shape(self, name: str) -> tuple[int, ...]:
        """Static shape of an ONNX tensor."""
        shape = self.shapes.get(name)
        if shape is None:
            raise UnsupportedError(f"the shape of {name} is not known")
        return shape

    def affine_of(self, name: str) -> Scale:
        """Scale and zero point from the calibrated range of an ONNX tensor."""
        if name not in self.ranges:
            raise UnsupportedError(f"{name} was not seen during calibration")
        return affine(self.ranges[name])

    def tensor(self, name: str, order: Order) -> q.Tensor:
        """The quantised form of an ONNX tensor in the wanted order."""
        if (name, order) not in self.held:
            self._bring(name, order)
        return self.result.tensors[self.held[name, order]]

    def order_for(self, name: str) -> Order:
        """Pictures, and signals that a convolution made, are kept channels last, everything else as it is."""
        is_signal = len(self.shape(name)) == 3 and (name, "channels_last") in self.held
        return "channels_last" if is_signal or len(self.shape(name)) == 4 else "onnx"

    def fused_activation(self, name: str) -> tuple[q.Activation, str]:
        """The activation that follows `name` alone, and the tensor behind it."""
        if not self.graph.used_once(name):
            return "none", name
        follower = self.graph.consumers[name][0]
        activation = activation_of(self.graph, follower)
        if activation is None:
            return "none", name
        self.done.add(follower.name)
        return activation, follower.output[0]

    # Growth

    def define(self, name: str, order: Order, scale: Scale) -> q.Tensor:
        """A new quantised tensor for an ONNX tensor."""
        shape = self.shape(name)
        if order == "channels_last":
            batch, channels, height, width = as_picture(shape)
            shape = (batch, height, width, channels)
        label = name if order == "onnx" else f"{name}/channels_last"
        return self._add_tensor(name, order, q.Tensor(label, shape, *scale))

    def add(self, op: q.Op) -> None:
        """Append an operator."""
        self.result.ops.append(op)

    def weights(self, values: Array, bias: Array | None, axis: int, source: q.Tensor) -> q.Weights:
        """Quantised weights for an operator that reads `source`."""
        bias = np.zeros(values.shape[axis]) if bias is None else bias.astype(np.float64)
        return quantize_weights(values, bias, axis, source.scale, self.granularity)

    def _add_tensor(self, name: str, order: Order, tensor: q.Tensor) -> q.Tensor:
        self.result.tensors[tensor.name] = tensor
        self.held[name, order] = tensor.name
        return tensor

    def _bring(self, name: str, order: Order) -> None:
        if name in self.flattened:
            self._reshape_late(name)
            if order == "onnx":
                return
        other: Order = "onnx" if order == "channels_last" else "channels_last"
        if (name, other) not in self.held:
            raise PoisonedError(name)
        source = self.result.tensors[self.held[name, other]]
        target = self.define(name, order, (source.scale, source.zero_point))
        label = f"{target.name}:order"
        if moves_nothing(self.shape(name)):
            self.add(q.Reshape(label, (source.name,), target.name))
        elif len(self.shape(name)) == 3:
            self._bring_signal(name, order, source, target)
        else:
            self.add(q.Transpose(label, (source.name,), target.name, AXES[order]))

    def _bring_signal(self, name: str, order: Order, source: q.Tensor, target: q.Tensor) -> None:
        """A signal is a picture of height 1."""
        picture = q.Tensor(f"{name}/picture", as_picture(self.shape(name)), source.scale, source.zero_point)
        self.result.tensors[picture.name] = picture
        steps = [source.name, picture.name, target.name]
        if order == "channels_last":
            self.add(q.Reshape(f"{target.name}:shape", (steps[0],), steps[1]))
            self.add(q.Transpose(f"{target.name}:order", (steps[1],), steps[2], AXES[order]))
        else:
            self.add(q.Transpose(f"{target.name}:order", (steps[0],), steps[1], AXES[order]))
            self.add(q.Reshape(f"{target.name}:shape", (steps[1],), steps[2]))

    def _reshape_late(self, name: str) -> None:
        if (name, "onnx") in self.held:
            return
        origin = self.flattened[name]
        # Bytes that are the same in both orders are taken as they lie.
        order: Order = "onnx"
        if (origin, "channels_last") in self.held and moves_nothing(self.shape(origin)):
            order = "channels_last"
        source = self.tensor(origin, order)
        target = self.define(name, "onnx", (source.scale, source.zero_point))
        self.add(q.Reshape(target.name, (source.name,), target.name))


def name_of(node: NodeProto) -> str:
    """What messages call the node."""
    return str(node.name or node.output[0])


def as_picture(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(batch, channels, height, width); a signal has height 1."""
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def moves_nothing(shape: tuple[int, ...]) -> bool:
    """Whether a picture or signal has the same bytes in either order."""
    return shape[1] == 1 or int(np.prod(shape[2:])) == 1


def activation_of(graph: Graph, node: NodeProto) -> q.Activation | None:
    """The activation that a node computes, if it is one that fuses.

    Any other Clip around zero needs none: the range of its result ends where it clips, and int8 saturates there.
    """
    if node.op_type == "Relu":
        return "relu"
    if node.op_type != "Clip":
        return None
    low, high = clip_bounds(graph, node)
    if low is None or high is None or not low <= 0.0 <= high:
        return None
    if low == 0.0 and high in (6.0, np.inf):
        return "relu6" if high == 6.0 else "relu"
    return "none"


def pair(values: object, default: int) -> q.Pair:
    """Two integers of a 2-D attribute, or the default twice; one of a 1-D attribute is for the width."""
    if values is None:
        return default, default
    *first, second = cast(list[int], values)
    return int(first[0]) if first else default, int(second)


def padding_of(node: NodeProto, size: q.Pair, kernel: q.Pair, stride: q.Pair, dilation: q.Pair) -> q.Padding:
    """Explicit padding of a convolution or pooling node, `auto_pad` worked out."""
    options = attributes(node)
    mode = options.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = options.get("pads", (0, 0, 0, 0))
        top, left, bottom, right = pads if len(pads) == 4 else (0, pads[0], 0, pads[1])
        return top, left, bottom, right
    if mode == "VALID":
        return 0, 0, 0, 0
    before, after = [], []
    for length, window, step, spread in zip(size, kernel, stride, dilation, strict=True):
        reach = (window - 1) * spread + 1
        total = max((-(-length // step) - 1) * step + reach - length, 0)
        smaller, larger = total // 2, total - total // 2
        before.append(smaller if mode == "SAME_UPPER" else larger)
        after.append(larger if mode == "SAME_UPPER" else smaller)
    return before[0], before[1], after[0], after[1]
