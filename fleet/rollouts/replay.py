"""The gate's rule for thousands of imagined rollouts at once: the same bets, looks, parts and extensions, in arrays.

A test plays single rollouts through `gates.evaluate` as well and finds the same answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fleet.rollouts import betting, pace
from fleet.rollouts.gates import SAFETY_MIN_DEVICES, Limits
from fleet.rollouts.mixture import NEVER, Bits, Counts, Differences, Mixture, logs_of


@dataclass(frozen=True)
class Course:
    """A rollout's outer form: cumulative sizes of its waves, each device's target in order, and the limits."""

    ends: Sequence[int]
    targets: npt.NDArray[np.int64]
    limits: Limits
    proceeds_without_evidence: bool = True
    # Failing devices went back by their own verdict, which stops a wave of which none is left; otherwise they could not
    # install it.
    own_verdict: bool = False
    paced: bool = True

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


@dataclass(frozen=True)
class Clock:
    """Told what each of the rollouts at hand does, to say how long it takes.

    asked: the marked rollouts ask devices from the first to the second number, and all answer. passed: the marked ones
    come to the end of a wave of so many devices, and soak.
    """

    asked: Callable[[Bits, Counts, Counts], None]
    passed: Callable[[Bits, Counts], None]


def play(
    failed: Bits, course: Course, clock: Clock | None = None, differences: Differences | None = None
) -> Played:
    """All rollouts, one row each; `failed` says of every device, in the plan's order, whether it would fail.

    `differences` are what devices that keep the version report, known when a wave has soaked. Memory grows with rows x
    devices: callers play some millions of cells at a time.
    """
    mixture = Mixture(course.targets, course.limits)
    total = failed.cumsum(axis=1, dtype=np.int32)
    table = _Table.of(course)
    state = _State(len(failed), course, clock)
    stop_at = mixture.stop_at(failed)
    crossings = _Crossings(
        stop_at,
        np.minimum(stop_at, mixture.stop_at(failed, differences)) if differences else stop_at,
        _first(total <= table.passes[None, 1:]),
    )
    while not state.over.all():
        state.look(total, crossings, table)
    return Played(state.stopped, state.asked, state.looks, state.waves, state.held)


@dataclass(frozen=True)
class _Crossings:
    """Number of devices at which each rollout is stopped by failures, by all it knows after a soak, and may pass."""

    stop: Counts
    stop_soaked: Counts
    passes: Counts


class _State:
    """Where each rollout stands."""

    def __init__(self, rollouts: int, course: Course, clock: Clock | None) -> None:
        self.course, self.clock = course, clock
        self.ends = np.array(course.ends)
        self.goal = np.full(rollouts, self.ends[0])
        self.over, self.stopped, self.held = (np.zeros(rollouts, dtype=bool) for _ in range(3))
        self.asked, self.looks, self.waves, self.began = (
            np.zeros(rollouts, dtype=np.int64) for _ in range(4)
        )
        self._ask(self.held)

    def _ask(self, proven: Bits) -> None:
        """The next part of those that are not over."""
        n = self.asked
        going = pace.parts(n, self.goal, proven) if self.course.paced else self.goal
        self.asked = np.where(self.over, n, going)
        if self.clock is not None:
            self.clock.asked(~self.over, n, self.asked)

    def look(self, total: npt.NDArray[np.int32], crossings: _Crossings, table: "_Table") -> None:
        """One look at every rollout that is not over, and what it asks next."""
        going, n = ~self.over, self.asked
        seen = total[np.arange(len(n)), n - 1]
        limit = self.course.limits.safety_limit
        unsafe = (n >= SAFETY_MIN_DEVICES) & (seen >= limit * n)
        stop = going & ((crossings.stop <= n) | unsafe)
        self.looks += going
        wave_over = going & ~stop & (n >= self.goal)
        if self.clock is not None:
            self.clock.passed(wave_over, n - self.began)
        late = wave_over & (crossings.stop_soaked <= n)
        stop, wave_over = stop | late, wave_over & ~late
        if self.course.own_verdict:
            before = np.where(self.began > 0, total[np.arange(len(n)), self.began - 1], 0)
            nobody = wave_over & (seen - before == n - self.began)
            alone = (n - self.began == 1) & (seen < n)
            self.held |= nobody & alone
            stop, wave_over = stop | (nobody & ~alone), wave_over & ~(nobody & ~alone)
        proven = crossings.passes <= n
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
        self.began = np.where(onward, n, self.began)
        self._ask(proven)


@dataclass(frozen=True)
class _Table:
    """For n devices: failures up to which E_ok passes, and how many clean ones are missing."""

    passes: Counts
    logs: tuple[betting.Array, betting.Array, betting.Array, float]

    @classmethod
    def of(cls, course: Course) -> "_Table":
        """By walking along the boundary."""
        limits = course.limits
        pass_logs = logs_of(betting.stakes_below(limits.p1), limits.p1, -1.0)
        even = np.log(np.full(len(pass_logs[0]), 1 / len(pass_logs[0])))
        passes = _pass_table(limits.p1, limits.beta, course.devices)
        return cls(passes, (*pass_logs, even, float(np.log(1 / limits.beta))))

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


@lru_cache(maxsize=32)
def _pass_table(p1: float, beta: float, most: int) -> Counts:
    bets = logs_of(betting.stakes_below(p1), p1, -1.0)
    even = np.log(np.full(len(bets[0]), 1 / len(bets[0])))
    return _walk_down(*bets, even, float(np.log(1 / beta)), most)


def _first(crossed: Bits) -> Counts:
    """Number of devices at the first crossing, from 1; never, where there is none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, NEVER)
