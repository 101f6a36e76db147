"""Float weights and biases as symmetric int8 and int32."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.graph.quantgraph import Weights

Granularity = Literal["per_channel", "per_tensor"]
FloatArray = npt.NDArray[np.floating]

WEIGHT_MAX = 127
BIAS_BOUND = float(1 << 28)  # leaves the accumulator room for the products


def quantize_weights(
    values: FloatArray, bias: FloatArray, axis: int, input_scale: float, granularity: Granularity
) -> Weights:
    """Weights with output channels on `axis`, and their bias at the scale of input times weight."""
    rows = np.moveaxis(values, axis, 0).reshape(bias.size, -1).astype(np.float64)
    peaks = np.abs(rows).max(axis=1)
    # A channel of zeros has no scale of its own; any will do.
    peaks = np.where(peaks > 0, peaks, max(float(peaks.max()), 1e-6))
    # A bias that is huge beside its weights would overflow int32: coarser weights make room.
    scales = np.maximum(peaks / WEIGHT_MAX, np.abs(bias) / (input_scale * BIAS_BOUND))
    if granularity == "per_tensor":
        scales = scales.max(keepdims=True)
    scales = scales.astype(np.float32).astype(np.float64)
    shape = [1] * values.ndim
    shape[axis] = scales.size
    stored = np.clip(np.rint(values / scales.reshape(shape)), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    return Weights(stored, scales, np.rint(bias / (input_scale * scales)).astype(np.int32))
