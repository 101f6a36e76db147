"""The four networks of MLPerf Tiny at full size with random weights, and the `.tflite` that converters make of them.

Source of the architectures: https://github.com/mlcommons/tiny, `benchmark/training`.
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np

from compression_jobs.pipeline.emit.tflite import emit
from compression_jobs.pipeline.graph.quant_build import build
from compression_jobs.pipeline.graph.quant_calibrate import calibrate
from tests.compression_jobs.pipeline.nets import Net

SAME = {"auto_pad": "SAME_UPPER"}


def resnet8() -> Net:
    net = Net(3, 32, 32).conv(3, 16, **SAME).node("Relu")
    for inputs, outputs, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        shortcut = net.y
        strides = {"strides": [stride, stride]}
        net.conv(inputs, outputs, **SAME, **strides).node("Relu").conv(outputs, outputs, **SAME)
        body = net.y
        if stride > 1:
            net.y = shortcut
            shortcut = net.conv(inputs, outputs, kernel=1, **SAME, **strides).y
        net.node("Add", shortcut, body).node("Relu")
    return head(net, (8, 8), 64, 10)


def ds_cnn() -> Net:
    net = Net(1, 49, 10).conv(1, 64, kernel=(10, 4), strides=[2, 2], **SAME).node("Relu")
    for _ in range(4):
        net.conv(64, 64, group=64, **SAME).node("Relu").conv(64, 64, kernel=1).node("Relu")
    return head(net, (25, 5), 64, 12)


def mobilenet() -> Net:
    net, channels = Net(3, 96, 96).conv(3, 8, strides=[2, 2], **SAME).node("Relu"), 8
    layers = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]
    for outputs, stride in layers:
        net.conv(channels, channels, group=channels, strides=[stride, stride], **SAME).node("Relu")
        net.conv(channels, outputs, kernel=1).node("Relu")
        channels = outputs
    return head(net, (3, 3), 256, 2)


def autoencoder() -> Net:
    net, widths = Net(640), [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    for inputs, outputs in pairwise(widths):
        net.dense(inputs, outputs)
        if outputs != 640:
            net.node("Relu")
    return net


def head(net: Net, size: tuple[int, int], channels: int, classes: int) -> Net:
    net.node("AveragePool", kernel_shape=list(size), strides=list(size))
    return net.reshape(1, channels).dense(channels, classes).node("Softmax", axis=-1)


MODELS: dict[str, Callable[[], Net]] = {
    "resnet8": resnet8,
    "ds_cnn": ds_cnn,
    "mobilenet": mobilenet,
    "autoencoder": autoencoder,
}


@cache
def ready(name: str) -> tuple[bytes, np.ndarray]:
    """The int8 `.tflite`, and four rows of stored numbers for it."""
    net = MODELS[name]()
    graph, rows = net.graph(), net.rows(4)
    made = build(graph, calibrate(graph, rows, "minmax", 100.0), "per_channel")
    shape = made.tensors[made.inputs[0]].shape
    return emit(made), np.random.default_rng(0).integers(-128, 128, (4, *shape[1:])).astype(np.int8)
