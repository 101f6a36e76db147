"""The gate's rule for thousands of imagined rollouts at once: the same bets, looks, parts and extensions, in arrays.

A test plays single rollouts through `gates.evaluate` as well and finds the same answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleet.rollouts import betting, pace
from fleet.rollouts.gates import SAFETY_MIN_DEVICES, Limits
from fleet.rollouts.processes import WEIGHT_ALL, WEIGHT_SIGNALS, WEIGHT_TARGETS

Bits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

# Cells of rollouts x devices x bets that are held at once.
_CELLS = 4_000_000
_NEVER = 10**9
_MAX_LOG = 300.0


@dataclass(frozen=True)
class Course:
    """A rollout's outer form: cumulative sizes of its waves, each device's target in order, and the limits."""

    ends: Sequence[int]
    targets: npt.NDArray[np.int64]
    limits: Limits
    proceeds_without_evidence: bool = True

    @property
    def devices(self) -> int:
        """How many devices take part."""
        return len(self.targets)


@dataclass(frozen=True)
class Played:
    """What became of each rollout; a held one goes on, as if a person said so."""

    stopped: Bits
    exposed: Counts
    looks: Counts
    waves: Counts
    held: Bits


def play(failed: Bits, course: Course) -> Played:
    """All rollouts, one row each; `failed` says of every device, in the plan's order, whether it would fail."""
    parts = [_play_some(rows, course) for rows in _chunks(failed)]
    return Played(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _chunks(failed: Bits) -> Iterator[Bits]:
    size = max(1, _CELLS // (len(betting.ABOVE_WEIGHTS) * max(1, failed.shape[1])))
    for start in range(0, len(failed), size):
        yield failed[start : start + size]


def _play_some(failed: Bits, course: Course) -> tuple[Bits, Counts, Counts, Counts, Bits]:
    total = failed.cumsum(axis=1, dtype=np.int32)
    table = _Table.of(course.limits, course.devices)
    state = _State(len(failed), course)
    stop_at = _first(_stops(failed, total, course, table))
    pass_at = _first(total <= table.passes[None, 1:])
    while not state.over.all():
        state.look(total, stop_at, pass_at, table)
    return state.stopped, state.asked, state.looks, state.waves, state.held


class _State:
    """Where each rollout stands."""

    def __init__(self, rollouts: int, course: Course) -> None:
        self.course = course
        self.ends = np.array(course.ends)
        self.goal = np.full(rollouts, self.ends[0])
        self.asked = pace.parts(np.zeros(rollouts, dtype=np.int64), self.goal, np.zeros(rollouts, dtype=bool))
        self.over, self.stopped, self.held = (np.zeros(rollouts, dtype=bool) for _ in range(3))
        self.looks, self.waves = (np.zeros(rollouts, dtype=np.int64) for _ in range(2))

    def look(self, total: npt.NDArray[np.int32], stop_at: Counts, pass_at: Counts, table: "_Table") -> None:
        """One look at every rollout that is not over, and what it asks next."""
        going, n = ~self.over, self.asked
        seen = total[np.arange(len(n)), n - 1]
        limit = self.course.limits.safety_limit
        unsafe = (n >= SAFETY_MIN_DEVICES) & (seen >= limit * n)
        stop = going & ((stop_at <= n) | unsafe)
        self.looks += going
        wave_over = going & ~stop & (n >= self.goal)
        proven = pass_at <= n
        can_show = self.course.devices - n >= table.missing(n, seen)
        extend = wave_over & ~proven & can_show
        onward = wave_over & ~extend
        if not self.course.proceeds_without_evidence:
            self.held |= onward & ~proven & (n < self.course.devices)
        self.waves += onward
        grown = np.minimum(self.course.devices, n + np.maximum(1, (n * pace.EXTENSION).astype(np.int64)))
        following = self.ends[np.minimum(np.searchsorted(self.ends, n, side="right"), len(self.ends) - 1)]
        self.goal = np.where(extend, grown, np.where(onward, following, self.goal))
        self.stopped |= stop
        self.over |= stop | (going & (n >= self.course.devices))
        self.asked = np.where(self.over, n, pace.parts(n, self.goal, proven))


@dataclass(frozen=True)
class _Table:
    """For n devices: failures that stop, failures up to which E_ok passes, and how many clean ones are missing."""

    stops: Counts
    passes: Counts
    logs: tuple[betting.Array, betting.Array, betting.Array, float]

    @classmethod
    def of(cls, limits: Limits, most: int) -> "_Table":
        """By walking along each boundary."""
        stop_logs = _bets(betting.stakes_above(limits.p0, limits.p1), limits.p0, 1.0)
        pass_logs = _bets(betting.stakes_below(limits.p1), limits.p1, -1.0)
        mixed = np.log(np.array(betting.ABOVE_WEIGHTS))
        even = np.log(np.full(len(pass_logs[0]), 1 / len(pass_logs[0])))
        stops = _walk_up(*stop_logs, mixed, np.log(1 / limits.alpha), most)
        passes = _walk_down(*pass_logs, even, np.log(1 / limits.beta), most)
        return cls(stops, passes, (*pass_logs, even, float(np.log(1 / limits.beta))))

    def missing(self, n: Counts, failed: npt.NDArray[np.int32]) -> Counts:
        """How many clean devices would still take E_ok to its boundary."""
        bad, good, weights, boundary = self.logs
        low, high = np.zeros(len(n), dtype=np.int64), np.full(len(n), 1_000_000)
        logs = failed[:, None] * bad + (n - failed)[:, None] * good + weights
        for _ in range(21):
            middle = (low + high) // 2
            reached = np.logaddexp.reduce(logs + middle[:, None] * good, axis=1) >= boundary
            low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
        return low


def _bets(stakes: betting.Array, rate: float, sign: float) -> tuple[betting.Array, betting.Array]:
    """What a failure and a success do to the logarithm of each bet."""
    return np.log1p(sign * stakes * (1 - rate)), np.log1p(-sign * stakes * rate)


def _walk_up(
    bad: betting.Array, good: betting.Array, weights: betting.Array, log: float, most: int
) -> Counts:
    """Least number of failures among n at which the mixture has reached `log`."""
    found, failed = np.full(most + 1, _NEVER), 0
    for n in range(1, most + 1):
        while failed <= n and np.logaddexp.reduce(weights + failed * bad + (n - failed) * good) < log:
            failed += 1
        found[n] = failed
    return found


def _walk_down(
    bad: betting.Array, good: betting.Array, weights: betting.Array, log: float, most: int
) -> Counts:
    """Largest number of failures among n at which the mixture has reached `log`; -1 for none."""
    found, failed = np.full(most + 1, -1), -1
    for n in range(1, most + 1):
        while np.logaddexp.reduce(weights + (failed + 1) * bad + (n - failed - 1) * good) >= log:
            failed += 1
        found[n] = failed
    return found


def _stops(failed: Bits, total: npt.NDArray[np.int32], course: Course, table: _Table) -> Bits:
    """Where the mixture of all stopping gates has reached its boundary, device by device."""
    limits, kinds = course.limits, np.unique(course.targets)
    if len(kinds) == 1 and not limits.tolerated:
        return total >= table.stops[None, 1:]
    weights = [WEIGHT_ALL, *([WEIGHT_TARGETS / len(kinds)] * len(kinds) if len(kinds) > 1 else [])]
    # Gates on measured differences hold their share of alpha; what they may add is left out.
    whole = sum(weights) + (WEIGHT_SIGNALS if limits.tolerated else 0.0)
    masks = [np.ones(course.devices, dtype=bool), *(course.targets == kind for kind in kinds)]
    mixed = np.zeros(failed.shape)
    for weight, mask in zip(weights, masks, strict=False):
        mixed += weight / whole * _capital(failed & mask, mask, limits)
    stops: Bits = mixed >= 1 / limits.alpha
    return stops


def _capital(failed: Bits, mask: Bits, limits: Limits) -> betting.Array:
    bad, good = _bets(betting.stakes_above(limits.p0, limits.p1), limits.p0, 1.0)
    k, n = failed.cumsum(axis=1, dtype=np.int32), mask.cumsum(dtype=np.int32)
    capital = np.zeros(failed.shape)
    for weight, lost, won in zip(betting.ABOVE_WEIGHTS, bad, good, strict=True):
        capital += weight * np.exp(np.minimum(k * lost + (n - k) * won, _MAX_LOG))
    return capital


def _first(crossed: Bits) -> Counts:
    """Number of devices at the first crossing, from 1; never, where there is none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, _NEVER)
