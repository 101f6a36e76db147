"""Latency histogram: 16 sub-buckets an octave of microseconds, merged by adding counts.

Below 32 us a bucket is one microsecond; above, the middle of a bucket is at most 1/32 (3.125 %) away from every value
in it. Two histograms hold the same buckets, so merging loses nothing (the idea is HdrHistogram's).
"""

from device_agent.core.protocol import ProtocolError

MAX_BUCKET = 463  # holds 2**32 - 1 us, 71 minutes; anything longer is counted there
MAX_COUNT = 0x7FFFFFFF
_SUB_BUCKETS = 16
_MAX_US = 0xFFFFFFFF


def bucket_of(value_us: int) -> int:
    """The bucket that counts a duration; negative ones (a clock that was set back) count as 0."""
    value = min(max(int(value_us), 0), _MAX_US)
    shift = 0
    while value >= 2 * _SUB_BUCKETS:
        value >>= 1
        shift += 1
    return _SUB_BUCKETS * shift + value


def bounds(bucket: int) -> tuple[int, int]:
    """The microseconds a bucket counts, as (low, high): low <= value < high."""
    if not 0 <= bucket <= MAX_BUCKET:
        raise ValueError("bucket %d is outside 0..%d" % (bucket, MAX_BUCKET))
    shift = max(bucket // _SUB_BUCKETS - 1, 0)
    step = bucket - _SUB_BUCKETS * shift
    return step << shift, (step + 1) << shift


def middle(bucket: int) -> int:
    """The duration in microseconds that stands for every value of a bucket."""
    low, high = bounds(bucket)
    return (low + high - 1) // 2


class Histogram:
    """Counts of durations by bucket; sparse, so that it costs what was seen."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0

    def add(self, value_us: int) -> None:
        """Count one duration in microseconds."""
        self._add_many(bucket_of(value_us), 1)

    def merge(self, other: "Histogram") -> None:
        """Add everything the other histogram counted."""
        for bucket in other.counts:
            self._add_many(bucket, other.counts[bucket])

    def percentile(self, q: float) -> int | None:
        """The duration in microseconds that a share `q` (0 to 1) of all values does not exceed; None when empty."""
        if not 0 <= q <= 1:
            raise ValueError("a percentile is asked for as a share between 0 and 1, not %s" % q)
        # Counts are compared with a float product; the tolerance keeps 0.95 x 20 from asking for the 20th value.
        wanted = max(q * self.count - 1e-9, 0.0)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return middle(bucket)
        return None

    def to_wire(self) -> list[list[int]]:
        """The sparse form `[[bucket, count], ...]`, buckets ascending."""
        return [[bucket, self.counts[bucket]] for bucket in sorted(self.counts)]

    def _add_many(self, bucket: int, count: int) -> None:
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.count += count


def from_wire(pairs: object) -> Histogram:
    """The histogram in its sparse form; raises ProtocolError unless buckets ascend and counts are 1 to 2**31 - 1."""
    if not isinstance(pairs, (list, tuple)) or len(pairs) > MAX_BUCKET + 1:
        raise ProtocolError("a histogram is a list of at most %d pairs" % (MAX_BUCKET + 1))
    histogram = Histogram()
    last = -1
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ProtocolError("a histogram holds [bucket, count] pairs")
        if not (_is_int(pair[0]) and _is_int(pair[1])):
            raise ProtocolError("a histogram holds [bucket, count] pairs of integers")
        bucket, count = pair
        if not last < bucket <= MAX_BUCKET or not 0 < count <= MAX_COUNT:
            raise ProtocolError("histogram buckets ascend from 0 to %d and count at least 1" % MAX_BUCKET)
        histogram._add_many(bucket, count)
        last = bucket
    return histogram


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
