"""Windows of convolutions and pooling, and TensorFlow's names for their padding."""

from typing import Literal

from compression_jobs.pipeline.graph.quantgraph import (
    Conv,
    DepthwiseConv,
    Padding,
    Pair,
    Pool,
    QuantGraph,
)

Windowed = Conv | DepthwiseConv | Pool


def same_padding(size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """Top, left, bottom and right of SAME: half of what is missing, the odd one behind."""
    before, after = [], []
    for length, window, step, spread in zip(size, kernel, stride, dilation, strict=True):
        missing = max((-(-length // step) - 1) * step + (window - 1) * spread + 1 - length, 0)
        before.append(missing // 2)
        after.append(missing - missing // 2)
    return before[0], before[1], after[0], after[1]


def kernel_of(op: Windowed) -> Pair:
    """Height and width of the window."""
    if isinstance(op, Pool):
        return op.kernel
    return int(op.weights.values.shape[1]), int(op.weights.values.shape[2])


def padding_name(graph: QuantGraph, op: Windowed) -> Literal["VALID", "SAME"] | None:
    """What TensorFlow calls the padding of `op`; None when it has no name there."""
    if not any(op.padding):
        return "VALID"
    _, height, width, _ = graph.tensor_of(op).shape
    dilation = (1, 1) if isinstance(op, Pool) else op.dilation
    same = same_padding((height, width), kernel_of(op), op.stride, dilation)
    return "SAME" if same == op.padding else None


def padded_shape(shape: tuple[int, ...], padding: Padding) -> tuple[int, ...]:
    """The shape of a picture with its padding around it."""
    top, left, bottom, right = padding
    return shape[0], shape[1] + top + bottom, shape[2] + left + right, shape[3]
