"""Functions of single int8 elements as tables of 256 answers, entry by entry those of TFLM's reference kernels.

Sources: tflite `reference/integer_ops/{logistic,tanh}.h`, `reference/{leaky_relu,hard_swish,requantize}.h`,
gemmlowp `fixedpoint.h`.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_arithmetic import (
    INT32_MAX,
    QMAX,
    QMIN,
    Int64Array,
    divide_by_power_of_two,
    multiply,
    quantize_multipliers,
)
from compression_jobs.pipeline.graph.quant_softmax import (
    exp_of_negative,
    one_minus_over_one_plus,
    one_over_one_plus,
)

INPUT_BITS = 4  # arguments of logistic and tanh are fixed point with 4 integer bits
INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1


def table(op: q.LookUp, source: q.Tensor, target: q.Tensor) -> npt.NDArray[np.int8]:
    """The answers of `op` to the stored values -128 to 127, in this order."""
    centred = np.arange(QMIN, QMAX + 1, dtype=np.int64) - source.zero_point
    answers = FUNCTIONS[op.function](op, source, target, centred)
    return np.clip(answers, QMIN, QMAX).astype(np.int8)


def _logistic(op: q.LookUp, source: q.Tensor, target: q.Tensor, centred: Int64Array) -> Int64Array:
    argument, radius = _argument(source, centred)
    positive = one_over_one_plus(exp_of_negative(-np.abs(argument), INPUT_BITS))
    share = np.where(argument > 0, positive, INT32_MAX - positive)
    share = np.where(argument == 0, 1 << 30, share)
    return _saturated(centred, radius, divide_by_power_of_two(share, 31 - 8) + target.zero_point)


def _tanh(op: q.LookUp, source: q.Tensor, target: q.Tensor, centred: Int64Array) -> Int64Array:
    argument, radius = _argument(source, centred)
    # With one integer bit more the same bits mean twice the argument.
    magnitude = one_minus_over_one_plus(exp_of_negative(-np.abs(argument), INPUT_BITS + 1))
    value = np.sign(argument) * magnitude
    return _saturated(centred, radius, divide_by_power_of_two(value, 31 - 7) + target.zero_point)


def _argument(source: q.Tensor, centred: Int64Array) -> tuple[Int64Array, int]:
    """Real arguments with four integer bits, and the magnitude of stored values from which they overflow."""
    multiplier, shift = quantize_multipliers(np.array(source.scale * 2.0 ** (31 - INPUT_BITS)))
    radius = math.floor(((1 << INPUT_BITS) - 1) * 2.0 ** (31 - INPUT_BITS - int(shift)))
    inside = np.where(np.abs(centred) < radius, centred, 0)
    return multiply(inside, multiplier, shift), radius


def _saturated(centred: Int64Array, radius: int, answers: Int64Array) -> Int64Array:
    return np.asarray(np.where(centred <= -radius, QMIN, np.where(centred >= radius, QMAX, answers)))


def _leaky_relu(op: q.LookUp, source: q.Tensor, target: q.Tensor, centred: Int64Array) -> Int64Array:
    # TensorFlow Lite computes the slope's multiplier in single precision.
    slope = float(np.float32(source.scale) * np.float32(op.alpha) / np.float32(target.scale))
    identity = float(np.float32(source.scale) / np.float32(target.scale))
    scaled = [multiply(centred, *quantize_multipliers(np.array(real))) for real in (identity, slope)]
    return np.asarray(np.where(centred >= 0, *scaled) + target.zero_point)


def _requantize(op: q.LookUp, source: q.Tensor, target: q.Tensor, centred: Int64Array) -> Int64Array:
    multiplier, shift = quantize_multipliers(np.array(source.scale / target.scale))
    return multiply(centred, multiplier, shift) + target.zero_point


def _hard_swish(op: q.LookUp, source: q.Tensor, target: q.Tensor, centred: Int64Array) -> Int64Array:
    """x * relu6(x + 3) / 6 in 16-bit arithmetic."""
    fine_scale = np.float32(1 / 128) * np.float32(source.scale)
    out_multiplier, out_exponent = _short_multiplier(fine_scale / np.float32(target.scale))
    in_multiplier, in_exponent = _short_multiplier(fine_scale / np.float32(3.0 / 32768.0))
    fine = centred * 128
    value = _short_high_multiply(fine, out_multiplier, 1 << 14)
    gate = _saturate(fine << max(in_exponent - 1, 0))
    gate = _short_high_multiply(gate, in_multiplier, 1 << 14)
    gate = _saturate(gate << 1) if in_exponent > 0 else divide_by_power_of_two(gate, -in_exponent)
    gate = (gate + (1 << 15)) >> 1
    product = _short_high_multiply(gate, value, 0)
    return divide_by_power_of_two(product, max(-out_exponent, 0)) + target.zero_point


def _short_multiplier(real: np.float32) -> tuple[int, int]:
    """A multiplier with 15 bits, and its power of two (tflite: DownScaleInt32ToInt16Multiplier)."""
    multiplier, exponent = quantize_multipliers(np.array(float(real)))
    if int(multiplier) >= INT32_MAX - (1 << 15):
        return INT16_MAX, int(exponent)
    return (int(multiplier) + (1 << 15)) >> 16, int(exponent)


def _short_high_multiply(a: Int64Array, b: Int64Array | int, nudge: int) -> Int64Array:
    """High half of 2ab of 16-bit numbers; C divides towards zero."""
    product = a * np.asarray(b)
    nudged = product + np.where(product >= 0, nudge, 1 - nudge if nudge else 0)
    high = np.where(nudged >= 0, nudged >> 15, -((-nudged) >> 15))
    return np.asarray(np.minimum(high, INT16_MAX))


def _saturate(values: Int64Array) -> Int64Array:
    return np.clip(values, INT16_MIN, INT16_MAX)


Table = Callable[[q.LookUp, q.Tensor, q.Tensor, Int64Array], Int64Array]

FUNCTIONS: dict[str, Table] = {
    "logistic": _logistic,
    "tanh": _tanh,
    "leaky_relu": _leaky_relu,
    "hard_swish": _hard_swish,
    "requantize": _requantize,
}
