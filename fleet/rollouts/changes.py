"""How a device changed between two times, as the gates' numbers: positive is worse."""

from fleet.rollouts import signals
from fleet.rollouts.signals import Measure
from fleet.telemetry import comparisons

# A median of fewer inferences than this compares noise.
MIN_INFERENCES = 20


def differences(found: comparisons.Comparison) -> dict[str, float]:
    """How a device changed, by signal; what it did not report on both sides is left out."""
    before, after = found.before, found.after
    if before is None or after is None:
        return {}
    made = {
        "errors": signals.fall(-_failing(before), -_failing(after)),
        "latency": _latency(before, after),
        "heap": _heap(before, after),
        "accuracy": _accuracy(before, after),
        "confidence": _confidence(before, after),
        "class_mix": signals.mix_change(before.counts.classes, after.counts.classes),
    }
    return {name: measure.value for name, measure in made.items() if measure is not None}


def _latency(before: comparisons.Side, after: comparisons.Side) -> Measure | None:
    medians = [side.latency.percentile(0.5) for side in (before, after)]
    if min(side.latency.count for side in (before, after)) < MIN_INFERENCES or None in medians:
        return None
    return signals.rise(*(float(median or 0) for median in medians))


def _heap(before: comparisons.Side, after: comparisons.Side) -> Measure | None:
    old, new = before.counts.heap_free_min, after.counts.heap_free_min
    if not old or new is None:
        return None
    return Measure(signals.clip(1 - new / old))


def _accuracy(before: comparisons.Side, after: comparisons.Side) -> Measure | None:
    if not before.counts.labelled or not after.counts.labelled:
        return None
    old, new = (side.counts.correct / side.counts.labelled for side in (before, after))
    return signals.fall(old, new)


def _confidence(before: comparisons.Side, after: comparisons.Side) -> Measure | None:
    old, new = (signals.mean_confidence(side.counts.confidence) for side in (before, after))
    return None if old is None or new is None else signals.fall(old, new)


def _failing(side: comparisons.Side) -> float:
    return side.counts.errors / side.counts.n
