"""The latency histogram counts, merges and crosses the wire the same on both interpreters."""

from device_agent.core.histogram import MAX_BUCKET, Histogram, bounds, bucket_of, from_wire, middle
from device_agent.core.protocol import ProtocolError


def test_buckets_are_contiguous_and_their_bounds_agree() -> None:
    edge = 0
    for bucket in range(MAX_BUCKET + 1):
        low, high = bounds(bucket)
        assert low == edge
        assert bucket_of(low) == bucket_of(high - 1) == bucket
        edge = high
    assert edge == 1 << 32


def test_the_middle_of_a_bucket_is_within_3_2_percent_of_its_values() -> None:
    for bucket in range(1, MAX_BUCKET + 1):
        low, high = bounds(bucket)
        assert abs(middle(bucket) - low) <= 0.032 * low
        assert abs(middle(bucket) - (high - 1)) <= 0.032 * (high - 1)


def test_impossible_durations_are_counted_at_the_ends() -> None:
    assert bucket_of(-5) == 0
    assert bucket_of(1 << 60) == MAX_BUCKET


def test_percentiles_of_a_known_set() -> None:
    histogram = Histogram()
    for value in range(1, 21):
        histogram.add(value)
    assert histogram.count == 20
    assert histogram.percentile(0.5) == 10
    assert histogram.percentile(0.95) == 19
    assert histogram.percentile(1) == 20
    assert Histogram().percentile(0.5) is None


def test_merging_equals_counting_everything_in_one() -> None:
    one, two, both = Histogram(), Histogram(), Histogram()
    for value in range(0, 100000, 97):
        (one if value % 3 else two).add(value)
        both.add(value)
    one.merge(two)
    assert one.to_wire() == both.to_wire()
    assert one.count == both.count


def test_the_wire_form_is_sparse_and_comes_back() -> None:
    histogram = Histogram()
    for value in (1000, 1000, 5, 70000000):
        histogram.add(value)
    wire = histogram.to_wire()
    assert wire == [[5, 1], [bucket_of(1000), 2], [bucket_of(70000000), 1]]
    assert from_wire(wire).to_wire() == wire


def test_hostile_wire_forms_are_refused() -> None:
    too_long = [[i, 1] for i in range(MAX_BUCKET + 2)]
    for hostile in (
        None, {}, "x", 5, [5], [[1]], [[1, 2, 3]], [[1, 0]], [[1, -1]], [[-1, 1]], [[MAX_BUCKET + 1, 1]],
        [[2, 1], [1, 1]], [[1, 1], [1, 1]], [[1.0, 1]], [[True, 1]], [[1, 1 << 31]], ["ab"], too_long,
    ):  # fmt: skip
        try:
            from_wire(hostile)
        except ProtocolError:
            continue
        raise AssertionError("accepted: " + repr(hostile)[:60])
