"""Which candidates no other one beats in everything."""

from collections.abc import Sequence

from compression_jobs.pipeline.candidate import Candidate


def mark_front(candidates: Sequence[Candidate]) -> None:
    """Set `on_front` for every measured candidate that no other one dominates.

    Accuracy, bytes, multiplications and, where it is an exact figure, RAM count. Host latency does not: it
    changes from run to run, and says little about a board.
    """
    measured = [candidate for candidate in candidates if candidate.was_measured]
    for candidate in measured:
        candidate.on_front = not any(dominates(other, candidate) for other in measured)


def dominates(one: Candidate, other: Candidate) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    pairs = list(zip(_costs(one), _costs(other), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _costs(candidate: Candidate) -> tuple[float, ...]:
    assert candidate.accuracy is not None
    # onnxruntime's memory is a resident set that differs between runs; an arena is exact.
    ram = (candidate.peak_ram_bytes or 0) if candidate.format != "onnx" else 0
    return -float(candidate.accuracy["value"]), candidate.bytes, candidate.macs, ram
