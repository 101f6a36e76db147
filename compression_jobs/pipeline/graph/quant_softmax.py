"""Int8 softmax in gemmlowp's fixed point, as TensorFlow Lite's reference kernel computes it.

Sources: tflite `reference/softmax.h`, gemmlowp `fixedpoint.h` (exp_on_negative_values,
one_over_one_plus_x_for_x_in_0_1).
"""

import math

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.graph.quant_arithmetic import (
    INT32_MAX,
    INT32_MIN,
    Int64Array,
    divide_by_power_of_two,
    doubling_high_multiply,
    multiply,
    quantize_multipliers,
)

DIFFERENCE_BITS = 5  # differences of inputs are fixed point with 5 integer bits
ACCUMULATION_BITS = 12
FRACTION = 31 - DIFFERENCE_BITS
ONE = INT32_MAX  # 1.0 with no integer bits
FORTY_EIGHT_17THS, THIRTY_TWO_17THS = 1515870810, 1010580540  # with two integer bits


def softmax(stored: npt.NDArray[np.int8], scale: float) -> Int64Array:
    """Softmax over the last axis of int8 `stored` with `scale`; output scale 1/256, zero point -128."""
    differences = stored.astype(np.int64) - stored.max(axis=-1, keepdims=True)
    exponentials, counts = _exponentials(differences, scale)
    shared = divide_by_power_of_two(exponentials, ACCUMULATION_BITS)
    sums = np.where(counts, shared, 0).sum(axis=-1, keepdims=True)
    reciprocal, bits_over_unit = _reciprocal(sums)
    product = doubling_high_multiply(np.broadcast_to(reciprocal, exponentials.shape), exponentials)
    scaled = divide_by_power_of_two(product, bits_over_unit + 31 - 8)
    return np.asarray(np.where(counts, np.clip(scaled - 128, -128, 127), -128))


def exponentials_of_differences(scale: float) -> Int64Array:
    """What each difference 0..255 to the largest value adds, in 31 bits; 0 for one that is too far to count."""
    exponentials, counts = _exponentials(-np.arange(256, dtype=np.int64), scale)
    return np.asarray(np.where(counts, exponentials, 0))


def _exponentials(differences: Int64Array, scale: float) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
    multiplier, shift = quantize_multipliers(np.array(min(scale * 2.0**FRACTION, 2.0**31 - 1)))
    lowest = -math.floor(((1 << DIFFERENCE_BITS) - 1) * 2.0 ** (31 - DIFFERENCE_BITS - int(shift)))
    counts = differences >= lowest
    return exp_of_negative(multiply(np.where(counts, differences, 0), multiplier, shift)), counts


def _reciprocal(sums: Int64Array) -> tuple[Int64Array, Int64Array]:
    """1 / sum as a fixed-point number with no integer bits, and the power of two beside it."""
    leading_zeros = 32 - np.frexp(sums.astype(np.float64))[1].astype(np.int64)
    bits_over_unit = ACCUMULATION_BITS - leading_zeros
    # Halved denominator 1 + x with x in [0, 1), from the sum shifted up to fill 32 bits.
    shifted_minus_one = (sums << leading_zeros) - (1 << 31)
    return one_over_one_plus(shifted_minus_one), bits_over_unit


def one_over_one_plus(x: Int64Array) -> Int64Array:
    """1 / (1 + x) for x in [0, 1], without integer bits."""
    return _saturating_shift_up(_newton(x), 1)


def one_minus_over_one_plus(x: Int64Array) -> Int64Array:
    """(1 - x) / (1 + x) for x in [0, 1], without integer bits."""
    return _saturating_shift_up(_newton(x) - (1 << 29), 2)


def _newton(x: Int64Array) -> Int64Array:
    """2 / (1 + x) with two integer bits, three Newton steps."""
    half_denominator = _rounding_half_sum(x, ONE)
    y = FORTY_EIGHT_17THS + doubling_high_multiply(half_denominator, -THIRTY_TWO_17THS)
    for _ in range(3):
        correction = (1 << 29) - doubling_high_multiply(half_denominator, y)
        y = y + _saturating_shift_up(doubling_high_multiply(y, correction), 2)
    return y


def _rounding_half_sum(a: Int64Array, b: int) -> Int64Array:
    total = a + b
    nudged = total + np.where(total >= 0, 1, -1)
    return np.asarray(np.where(nudged >= 0, nudged >> 1, -((-nudged) >> 1)))


def _saturating_shift_up(values: Int64Array, bits: int) -> Int64Array:
    return np.asarray(np.clip(values << bits, INT32_MIN, INT32_MAX))


# exp(-2^exponent) with no integer bits, for the bits of the argument above its quarter.
_EXPONENTS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)


def exp_of_negative(a: Int64Array, integer_bits: int = DIFFERENCE_BITS) -> Int64Array:
    """exp(a) for a <= 0 with 4 or 5 integer bits; the result has none."""
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    remainder_part = (a & (quarter - 1)) - quarter
    result = _exp_near_zero(remainder_part << integer_bits)
    rest = remainder_part - a
    for exponent, factor in _EXPONENTS:
        if exponent < integer_bits:
            bit = 1 << (fraction + exponent)
            result = np.where(rest & bit, doubling_high_multiply(result, factor), result)
    return np.asarray(np.where(a == 0, ONE, result))


def _exp_near_zero(a: Int64Array) -> Int64Array:
    """exp(a) for a in [-1/4, 0) with no integer bits: a fourth-order expansion around -1/8."""
    constant, third = 1895147668, 715827883
    x = a + (1 << 28)
    x2 = doubling_high_multiply(x, x)
    x3 = doubling_high_multiply(x2, x)
    x4 = doubling_high_multiply(x2, x2)
    quarter_of_x4 = divide_by_power_of_two(x4, 2)
    higher = divide_by_power_of_two(doubling_high_multiply(quarter_of_x4 + x3, third) + x2, 1)
    return np.asarray(constant + doubling_high_multiply(constant, x + higher))
