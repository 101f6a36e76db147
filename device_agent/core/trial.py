"""A new artifact's time on trial: counts, a sequential test on wrong answers, and the verdict.

The test is a mixture e-process (Waudby-Smith & Ramdas 2023): each wrong (1) or right (0) answer is a bet against "no more
than p0 = 1 - accuracy_floor are wrong"; by Ville's inequality its value passes 1/alpha with probability alpha at most,
however often one looks.
"""
# mypy: disable-error-code="type-arg"

import math

from device_agent.core.protocol import ProtocolError

# Stakes as fractions of the largest safe one; literal, because whether one failure suffices depends on this grid.
FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
ALPHA = 0.005

RUNNING = "running"
STOP = "stop"
PASS = "pass"
OUT_OF_TIME = "out_of_time"

# A floor of 1 would make one wrong answer infinitely surprising.
_MIN_RATE = 1e-3


class EProcess:
    """Evidence that more than `rate` of a stream of zeros and ones are ones."""

    def __init__(self, rate: float) -> None:
        self.rate = min(max(rate, _MIN_RATE), 1 - _MIN_RATE)
        # Logarithms, so that thousands of labels neither overflow nor vanish in 32-bit floats.
        self.logs = [0.0] * len(FRACTIONS)
        self.peak = 1.0

    def observe(self, one: bool) -> None:
        """Take one outcome into account."""
        x = 1.0 if one else 0.0
        for i, fraction in enumerate(FRACTIONS):
            self.logs[i] += math.log(1.0 + fraction / self.rate * (x - self.rate))
        self.peak = max(self.peak, self.value())

    def value(self) -> float:
        """The mixture's capital now; `peak` is its running maximum, which is what counts."""
        top = max(self.logs)
        if top > 60.0:
            return 1e26
        return sum(math.exp(log) for log in self.logs) / len(FRACTIONS)


def _number(rules: dict, field: str, default: float, low: float, high: float) -> float:
    value = rules.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ProtocolError("trial." + field + " is not a number from " + str(low) + " to " + str(high))
    return value


class Trial:
    """Counts of one trial and what follows from them; `rules` is the manifest's `trial`."""

    def __init__(self, rules: dict, now_ms: int) -> None:
        many = 1000000000
        self.min_inferences = int(_number(rules, "min_inferences", 1, 0, many))
        self.max_seconds = int(_number(rules, "max_seconds", 3600, 0, many))
        self.max_errors = int(_number(rules, "max_errors", 0, 0, many))
        self.deadline_us = int(_number(rules, "deadline_us", 0, 0, many))
        self.min_labelled = int(_number(rules, "min_labelled", 0, 0, many))
        floor = _number(rules, "accuracy_floor", -1.0, 0.0, 1.0)
        self.alpha = _number(rules, "alpha", ALPHA, 1e-9, 0.5)
        self.wrong = EProcess(1.0 - floor) if floor >= 0 else None
        self.started_ms = now_ms
        self.n = 0
        self.errors = 0
        self.missed = 0
        self.labelled = 0
        self.correct = 0

    def ran(self, latency_us: int) -> None:
        """One answer was given."""
        self.n += 1
        if self.deadline_us and latency_us > self.deadline_us:
            self.missed += 1

    def failed(self) -> None:
        """One request ended in an error."""
        self.errors += 1

    def observe(self, correct: bool) -> None:
        """The truth about one answer of the trial slot is known."""
        self.labelled += 1
        if correct:
            self.correct += 1
        if self.wrong is not None:
            self.wrong.observe(not correct)

    def verdict(self, now_ms: int) -> "tuple[str, str]":
        """(RUNNING, STOP, PASS or OUT_OF_TIME, the reason in words)."""
        reason = self._stop_reason()
        if reason:
            return STOP, reason
        if self.n - self.missed >= self.min_inferences and self.labelled >= self.min_labelled:
            return PASS, self.summary()
        if now_ms - self.started_ms >= self.max_seconds * 1000:
            return OUT_OF_TIME, "installed, no evidence: " + self.summary()
        return RUNNING, ""

    def _stop_reason(self) -> str:
        if self.errors > self.max_errors:
            return "%d errors, %d allowed" % (self.errors, self.max_errors)
        if self.missed > self.max_errors:
            return "%d answers took longer than %d us, %d allowed" % (
                self.missed,
                self.deadline_us,
                self.max_errors,
            )
        if self.wrong is not None and self.wrong.peak >= 1 / self.alpha:
            share = "%d of %d labelled answers were wrong" % (self.labelled - self.correct, self.labelled)
            return share + ", at most %.1f %% expected" % (100 * self.wrong.rate)
        return ""

    def summary(self) -> str:
        """What was seen so far, in words."""
        return "%d answers, %d labelled, %d correct, %d errors" % (
            self.n,
            self.labelled,
            self.correct,
            self.errors,
        )

    def evidence(self, enough: bool) -> dict:
        """What the server keeps of this trial."""
        value = None if self.wrong is None else self.wrong.peak
        return {
            "n": self.n,
            "errors": self.errors,
            "missed": self.missed,
            "labelled": self.labelled,
            "correct": self.correct,
            "e_value": value,
            "enough": enough,
        }

    def snapshot(self, now_ms: int) -> dict:
        """The counts as JSON, so that a restart continues the trial instead of repeating it."""
        logs = None if self.wrong is None else [self.wrong.peak] + self.wrong.logs
        counts = [now_ms - self.started_ms, self.n, self.errors, self.missed, self.labelled, self.correct]
        return {"counts": counts, "logs": logs}

    def restore(self, snapshot: dict, now_ms: int) -> None:
        """Continue from what `snapshot` returned before the restart."""
        elapsed, self.n, self.errors, self.missed, self.labelled, self.correct = snapshot["counts"]
        self.started_ms = now_ms - elapsed
        if self.wrong is not None and snapshot["logs"]:
            self.wrong.peak = snapshot["logs"][0]
            self.wrong.logs = list(snapshot["logs"][1:])
