"""What the core does by itself agrees with the libraries that do it on a server."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.core.ed25519 import sha512, verify
from device_agent.core.histogram import Histogram, bounds, from_wire


@given(st.binary(max_size=600))
def test_sha512_equals_hashlib(message: bytes) -> None:
    assert sha512(message) == hashlib.sha512(message).digest()


@settings(max_examples=40)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511), st.booleans())
def test_signatures_are_judged_as_cryptography_judges_them(
    secret: bytes, message: bytes, bit: int, spoil: bool
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(secret)
    key, signature = private.public_key().public_bytes_raw(), bytearray(private.sign(message))
    if spoil:
        signature[bit // 8] ^= 1 << bit % 8
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(bytes(signature), message)
        accepted = True
    except InvalidSignature:
        accepted = False
    assert accepted is not spoil
    assert verify(key, message, bytes(signature)) is accepted


durations = st.lists(st.integers(0, 1 << 32), min_size=1, max_size=200)


@given(durations, durations)
def test_merged_histograms_equal_one_histogram_of_everything(first: list[int], second: list[int]) -> None:
    one, two, both = Histogram(), Histogram(), Histogram()
    for value in first:
        one.add(value)
    for value in second:
        two.add(value)
    for value in first + second:
        both.add(value)
    merged = from_wire(one.to_wire())
    merged.merge(from_wire(two.to_wire()))
    assert merged.to_wire() == both.to_wire()
    assert merged.count == len(first) + len(second)


@given(durations, st.floats(0, 1))
def test_a_percentile_is_within_3_2_percent_of_the_value_it_stands_for(values: list[int], q: float) -> None:
    values = [min(value, (1 << 32) - 1) for value in values]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = next(v for rank, v in enumerate(sorted(values), 1) if rank >= q * len(values) - 1e-9)
    measured = histogram.percentile(q)
    assert measured is not None
    assert abs(measured - exact) <= 0.032 * exact


@given(st.integers(0, 463))
def test_bounds_hold_at_most_one_sixteenth_of_their_value(bucket: int) -> None:
    low, high = bounds(bucket)
    assert high - low <= max(1, low / 16)
