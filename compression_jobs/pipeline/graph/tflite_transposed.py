"""TRANSPOSE_CONV of a `.tflite` as what it is worth: zeros between the pixels, then a convolution with turned weights.

Sums are those of the operator itself, zeros add nothing; so the bytes are TFLM's. It takes stride squared as many MACs.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_windows import same_padding
from compression_jobs.pipeline.graph.tflite_importer import Importer, UnsupportedError
from compression_jobs.pipeline.graph.tflite_moves import MOST_TIMES, reshaped
from compression_jobs.pipeline.graph.tflite_reading import Node


def transpose_conv(importer: Importer, node: Node) -> None:
    """Inputs are the shape of the result, weights (outputs, height, width, inputs), the picture, and maybe a bias."""
    source = importer.source(node, 2)
    layer = Node(
        node.kind, node.label, [-1, *node.inputs[1:2], *node.inputs[3:4]], node.outputs, node.options
    )
    weights = importer.weights(layer, 0)
    activation, target = importer.activation(node.options), importer.target(node)
    if not len(source.shape) == len(target.shape) == weights.values.ndim == 4:
        raise UnsupportedError("its input, weights or result do not have four dimensions")
    stride = node.options.StrideH(), node.options.StrideW()
    kernel = int(weights.values.shape[1]), int(weights.values.shape[2])
    if min(*stride, *kernel) < 1 or max(stride) > MOST_TIMES:
        raise UnsupportedError(f"its window is smaller than 1, or its stride none of 1 to {MOST_TIMES}")
    padding = _padding(node, source, target, kernel, stride)
    if min(padding) < 0:
        raise UnsupportedError("the size of its result does not follow from its input")
    turned = q.Weights(np.ascontiguousarray(weights.values[:, ::-1, ::-1]), weights.scales, weights.bias)
    spread = _spread(importer, node, source, stride)
    place = (node.label, (spread.name,), target.name)
    importer.add(q.Conv(*place, turned, activation, (1, 1), padding, (1, 1)))


def _padding(node: Node, source: q.Tensor, target: q.Tensor, kernel: q.Pair, stride: q.Pair) -> q.Padding:
    """Zeros around the spread picture, so that windows lie where the operator adds them up."""
    taken = (0, 0, 0, 0)
    size = target.shape[1], target.shape[2]
    if node.options.Padding() == schema.Padding.SAME:
        taken = same_padding(size, kernel, stride, (1, 1))
    before = [kernel[axis] - 1 - taken[axis] for axis in range(2)]
    after = [size[axis] - (source.shape[1 + axis] - 1) * stride[axis] - 1 + taken[axis] for axis in range(2)]
    return before[0], before[1], after[0], after[1]


def _spread(importer: Importer, node: Node, source: q.Tensor, stride: q.Pair) -> q.Tensor:
    """The picture with zeros between its pixels, and none behind the last ones."""
    if stride == (1, 1):
        return source
    _, height, width, channels = source.shape
    down, across = stride
    spread = _padded(importer, node, source, (1, height * width, 1, channels), across, "columns apart")
    row = width * across * channels
    spread = _padded(importer, node, spread, (1, height, 1, row), down, "rows apart")
    whole = reshaped(importer, node, spread, (1, height * down, width * across, channels), "spread")
    shape = (1, (height - 1) * down + 1, (width - 1) * across + 1, channels)
    cut = importer.between(whole, shape, "cut")
    importer.add(q.Slice(cut.name, (whole.name,), cut.name, (0, 0, 0, 0), (1, 1, 1, 1)))
    return cut


def _padded(
    importer: Importer, node: Node, source: q.Tensor, shape: tuple[int, ...], times: int, what: str
) -> q.Tensor:
    """Zeros behind each run of bytes, up to so many times its length."""
    runs = reshaped(importer, node, source, shape, what)
    padded = importer.between(runs, (*shape[:2], times, shape[3]), what)
    importer.add(q.Pad(padded.name, (runs.name,), padded.name, (0, 0, 0, times - 1)))
    return padded
