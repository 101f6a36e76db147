"""Shadow rollouts: what devices say of a new artifact that ran beside the one they use, which kept answering."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet.rollouts import signals, strategy
from fleet.rollouts.models import Delivery, Rollout

# What a device counts, beside its trial's figures.
COUNTS: Final = ("compared", "agreed", "old_correct", "old_us", "new_us")
_ADDED: Final = ("n", "errors", "compared", "agreed", "labelled", "correct", "old_correct")


@dataclass(frozen=True)
class Comparison:
    """Both artifacts on the same inputs, over all devices; latencies are means in microseconds."""

    devices: int
    n: int
    errors: int
    compared: int
    agreed: int
    labelled: int
    correct: int
    old_correct: int
    old_us: int
    new_us: int

    @property
    def agreement(self) -> float | None:
        """Share of inputs on which both name one class; None without classes."""
        return self.agreed / self.compared if self.compared else None

    @property
    def accuracy_difference(self) -> float | None:
        """Accuracy of the new one less that of the old one, on the same labelled inputs; None without labels."""
        return (self.correct - self.old_correct) / self.labelled if self.labelled else None

    @property
    def latency_change(self) -> float | None:
        """Relative change of the mean latency; None when nothing was measured."""
        return self.new_us / self.old_us - 1 if self.old_us else None

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        if not self.n:
            return "no device has compared both versions"
        parts = [f"both ran on {self.n} inputs of {self.devices} devices"]
        if self.agreement is not None:
            parts.append(f"they agree on {self.agreement:.1%}")
        if self.latency_change is not None:
            parts.append(f"the new one takes {self.new_us} µs, the old one {self.old_us} µs")
        if self.accuracy_difference is not None:
            parts.append(
                f"of {self.labelled} labelled answers {self.correct} of the new one are right "
                f"and {self.old_correct} of the old one"
            )
        return "; ".join(parts)


def is_shadow(rollout: Rollout) -> bool:
    """Whether nothing is to be installed."""
    return strategy.read(rollout.strategy).trial.shadow


def compare(rollout: Rollout) -> Comparison:
    """Everything that the rollout's devices counted, in one query."""
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL).values_list("evidence", flat=True)
    seen = [evidence for evidence in installs if evidence.get("n") and "compared" in evidence]
    sums = {name: sum(_count(evidence, name) for evidence in seen) for name in _ADDED}
    times = {name: _mean(seen, name) for name in ("old_us", "new_us")}
    return Comparison(devices=len(seen), **sums, **times)


def differences(evidence: Mapping[str, Any]) -> dict[str, float]:
    """How one device's new artifact does against its old one, by signal; paired, because the inputs are the same."""
    found: dict[str, float] = {}
    n, errors, labelled = (_count(evidence, name) for name in ("n", "errors", "labelled"))
    if n + errors:
        found["errors"] = signals.clip(errors / (n + errors))
    if n and _count(evidence, "old_us"):
        found["latency"] = signals.rise(_count(evidence, "old_us"), _count(evidence, "new_us")).value
    if labelled:
        old, new = (_count(evidence, name) / labelled for name in ("old_correct", "correct"))
        found["accuracy"] = signals.fall(old, new).value
    if _count(evidence, "compared"):
        found["disagreement"] = signals.clip(1 - _count(evidence, "agreed") / _count(evidence, "compared"))
    return found


def _mean(seen: list[dict[str, Any]], name: str) -> int:
    n = sum(_count(evidence, "n") for evidence in seen)
    total = sum(_count(evidence, name) * _count(evidence, "n") for evidence in seen)
    return round(total / n) if n else 0


def _count(evidence: Mapping[str, Any], name: str) -> int:
    value = evidence.get(name)
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0
