"""TensorFlow's SAME padding, as explicit numbers."""

from compression_jobs.pipeline.graph.quantgraph import Padding, Pair


def same_padding(size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """Top, left, bottom and right of SAME: half of what is missing, the odd one behind."""
    before, after = [], []
    for length, window, step, spread in zip(size, kernel, stride, dilation, strict=True):
        missing = max((-(-length // step) - 1) * step + (window - 1) * spread + 1 - length, 0)
        before.append(missing // 2)
        after.append(missing - missing // 2)
    return before[0], before[1], after[0], after[1]
