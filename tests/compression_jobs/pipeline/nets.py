"""Small ONNX graphs with random weights, made without torch."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quant_build import build
from compression_jobs.pipeline.graph.quant_calibrate import calibrate
from compression_jobs.pipeline.graph.quant_weights import Granularity
from compression_jobs.pipeline.graph.quantgraph import QuantGraph


class Net:
    """Adds one node after the other; `y` is the tensor that the last one made."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.chance = np.random.default_rng(seed)
        self.shape = (1, *shape)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.y = "x"

    def node(self, op: str, *inputs: str, **options: Any) -> "Net":
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs or [self.y], [output], name=output, **options))
        self.y = output
        return self

    def constant(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weights(self, *shape: int, spread: float = 1.0) -> str:
        fan_in = max(int(np.prod(shape[1:])), 1)
        return self.constant((self.chance.normal(size=shape) * spread / fan_in**0.5).astype(np.float32))

    def conv(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, group: int = 1, **options: Any
    ) -> "Net":
        size = [kernel, kernel] if isinstance(kernel, int) else list(kernel)
        names = [self.weights(outputs, inputs // group, *size), self.weights(outputs)]
        return self.node("Conv", self.y, *names, group=group, kernel_shape=size, **options)

    def conv1d(self, inputs: int, outputs: int, kernel: int, group: int = 1, **options: Any) -> "Net":
        names = [self.weights(outputs, inputs // group, kernel), self.weights(outputs)]
        return self.node("Conv", self.y, *names, group=group, kernel_shape=[kernel], **options)

    def dense(self, inputs: int, outputs: int) -> "Net":
        return self.node("Gemm", self.y, self.weights(outputs, inputs), self.weights(outputs), transB=1)

    def relu6(self) -> "Net":
        return self.node("Clip", self.y, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def reshape(self, *shape: int) -> "Net":
        return self.node("Reshape", self.y, self.constant(np.array(shape, np.int64)))

    def graph(self) -> Graph:
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        target = helper.make_tensor_value_info(self.y, TensorProto.FLOAT, None)
        body = helper.make_graph(self.nodes, "net", [source], [target], self.constants)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return Graph(model)

    def rows(self, count: int) -> np.ndarray:
        return self.chance.normal(size=(count, *self.shape[1:])).astype(np.float32)


def residual_net() -> Net:
    """A stem, a residual block with a strided shortcut, global pooling, a dense head."""
    net = Net(1, 12, 12).conv(1, 8, pads=[1, 1, 1, 1]).node("Relu")
    stem = net.y
    net.conv(8, 12, strides=[2, 2], pads=[1, 1, 1, 1]).node("Relu").conv(12, 12, pads=[1, 1, 1, 1])
    body = net.y
    net.y = stem
    net.conv(8, 12, kernel=1, strides=[2, 2])
    return net.node("Add", body, net.y).node("Relu").node("GlobalAveragePool").reshape(1, 12).dense(12, 5)


def separable_net() -> Net:
    """Depthwise separable convolutions with relu6, three channels in, pooling, softmax."""
    net = Net(3, 10, 10).conv(3, 8, strides=[2, 2], pads=[0, 0, 1, 1]).relu6()
    net.conv(8, 16, group=8, pads=[1, 1, 1, 1]).relu6().conv(16, 12, kernel=1).relu6()
    net.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    return net.reshape(1, 48).dense(48, 6).node("Softmax", axis=-1)


def lenet() -> Net:
    """Odd sizes, maxima before an activation of their own, average pooling with padding, two dense layers."""
    net = Net(2, 13, 9).conv(2, 6, kernel=5).node("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).node("Relu")
    net.conv(6, 8, pads=[1, 1, 1, 1], dilations=[1, 1])
    options = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    return net.node("AveragePool", **options).reshape(1, 64).dense(64, 20).node("Relu").dense(20, 4)


def perceptron() -> Net:
    """A picture flattened at once, three dense layers."""
    net = Net(1, 6, 6).reshape(1, 36).dense(36, 24).node("Relu").dense(24, 16).node("Relu")
    return net.dense(16, 10)


def gated_net() -> Net:
    """Squeeze and excite, branches joined by channels, functions of elements, a difference."""
    net = Net(2, 8, 8).conv(2, 5, kernel=1).node("Relu").conv(5, 6, pads=[1, 1, 1, 1]).node("HardSwish")
    body = net.y
    net.node("GlobalAveragePool").conv(6, 6, kernel=1).node("Sigmoid")
    net.node("Mul", body, net.y)
    gated = net.y
    net.conv(6, 4, kernel=1).node("LeakyRelu", alpha=0.1)
    left = net.y
    net.node("Concat", left, gated, axis=1).conv(10, 6, pads=[1, 1, 1, 1]).node("Tanh")
    net.node("Sub", net.y, gated).node("Relu")
    return net.node("GlobalMaxPool").reshape(1, 6).dense(6, 3)


def signal_net() -> Net:
    """One-dimensional convolutions, as accelerometers and microphones have."""
    net = Net(3, 32).conv1d(3, 8, 5, pads=[2, 2], strides=[2]).node("Relu")
    body = net.y
    net.conv1d(8, 8, 3, pads=[1, 1], group=8)
    net.node("Add", body, net.y).node("MaxPool", kernel_shape=[2], strides=[2]).conv1d(8, 6, 3).node("Relu")
    return net.reshape(1, 36).dense(36, 4).node("Softmax", axis=-1)


def encoder_net() -> Net:
    """The autoencoder of MLPerf Tiny in small: dense layers down to a waist and up again."""
    net = Net(64).dense(64, 24).node("Relu").dense(24, 12).node("Relu")
    return net.dense(12, 24).node("Relu").dense(24, 64)


NETS = {
    "residual": residual_net,
    "separable": separable_net,
    "lenet": lenet,
    "perceptron": perceptron,
    "gated": gated_net,
    "signal": signal_net,
    "encoder": encoder_net,
}


def quantized(name: str, granularity: Granularity) -> tuple[QuantGraph, np.ndarray]:
    """The int8 form of a net, and rows for it."""
    net = NETS[name]()
    graph, rows = net.graph(), net.rows(60)
    return build(graph, calibrate(graph, rows[:32], "percentile", 99.9), granularity), rows
