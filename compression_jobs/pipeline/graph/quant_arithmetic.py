"""TensorFlow Lite's fixed-point arithmetic on NumPy arrays, exactly as its reference kernels compute it.

Sources: gemmlowp `fixedpoint.h` and tflite `kernels/internal/common.h` (double rounding).
"""

import numpy as np
import numpy.typing as npt

QMIN, QMAX = -128, 127
EXACT_BOUND = float(1 << 30)
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def quantize_multipliers(real: npt.NDArray[np.float64]) -> tuple[Int32Array, Int32Array]:
    """Each real multiplier as a 31-bit integer and a power of two (tflite: QuantizeMultiplier)."""
    fraction, exponent = np.frexp(np.asarray(real, dtype=np.float64))
    fixed = np.floor(fraction * (1 << 31) + 0.5).astype(np.int64)
    carried = fixed == 1 << 31
    fixed = np.where(carried, fixed // 2, fixed)
    shift = exponent.astype(np.int64) + carried
    vanishes = shift < -31
    fixed, shift = np.where(vanishes, 0, fixed), np.where(vanishes, 0, shift)
    return fixed.astype(np.int32), shift.astype(np.int32)


def mean_multiplier(real: float, count: int) -> tuple[int, int]:
    """Multiplier and shift of a mean: the division by `count` is folded into it (tflite: QuantizedMeanOrSum)."""
    fixed, exponent = (int(part) for part in quantize_multipliers(np.array(real)))
    room = min(count.bit_length() - 1, 32, 31 + exponent)
    return (fixed << room) // count, exponent - room


def multiply(values: Int64Array, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> Int64Array:
    """Values times multiplier times 2^shift, rounded twice (MultiplyByQuantizedMultiplier)."""
    shift = np.asarray(shift, dtype=np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    product = doubling_high_multiply(values << left, np.asarray(multiplier, dtype=np.int64))
    return divide_by_power_of_two(product, right)


def doubling_high_multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """High half of 2ab, rounded, halves away from zero (SaturatingRoundingDoublingHighMul)."""
    product = np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    # C divides towards zero, an arithmetic shift would round down.
    high = np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))
    return np.minimum(high, INT32_MAX)


def divide_by_power_of_two(values: npt.ArrayLike, exponent: npt.ArrayLike) -> Int64Array:
    """Values / 2^exponent to nearest, halves away from zero (RoundingDivideByPOT)."""
    values, exponent = np.asarray(values, dtype=np.int64), np.asarray(exponent, dtype=np.int64)
    mask = (np.int64(1) << exponent) - 1
    remainder = values & mask
    threshold = (mask >> 1) + (values < 0)
    return np.asarray((values >> exponent) + (remainder > threshold))
