"""The fixed-point arithmetic against its definition on Python's whole numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compression_jobs.pipeline.graph.quant_arithmetic import multiply, quantize_multipliers

accumulators = st.integers(-(1 << 30) + 1, (1 << 30) - 1)


def defined(value: int, multiplier: int, shift: int) -> int:
    """gemmlowp, written out: SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT."""
    product = value * (1 << max(shift, 0)) * multiplier
    nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
    high = abs(product + nudge) >> 31
    high = high if product + nudge >= 0 else -high
    exponent = max(-shift, 0)
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if high < 0 else 0)
    return (high >> exponent) + (1 if (high & mask) > threshold else 0)


@given(accumulators, st.floats(1e-8, 0.999))
def test_multiplication_is_that_of_tflite_to_the_bit(value: int, real: float) -> None:
    multiplier, shift = quantize_multipliers(np.array([real]))
    result = multiply(np.array([value], np.int64), multiplier, shift)
    assert int(result[0]) == defined(value, int(multiplier[0]), int(shift[0]))


@given(accumulators, st.floats(1e-6, 0.999))
def test_multiplication_is_within_one_of_the_real_product(value: int, real: float) -> None:
    multiplier, shift = quantize_multipliers(np.array([real]))
    result = int(multiply(np.array([value], np.int64), multiplier, shift)[0])
    assert abs(result - value * real) <= 1 + abs(value * real) * 2**-30


@given(st.floats(1e-9, 1e6))
def test_a_multiplier_holds_31_bits_of_the_real_one(real: float) -> None:
    multiplier, shift = quantize_multipliers(np.array([real]))
    assert abs(int(multiplier[0]) * 2.0 ** (int(shift[0]) - 31) / real - 1) < 2**-30
