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
    # install it, and a person is asked.
    own_verdict: bool = False
    paced: bool = True
    approve_waves: bool = False

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
    come to the end of a wave that asked devices from the first to the second number, and soak. waited: the marked ones
    wait for a person.
    """

    asked: Callable[[Bits, Counts, Counts], None]
    passed: Callable[[Bits, Counts, Counts], None]
    waited: Callable[[Bits], None]


def play(
    failed: Bits,
    course: Course,
    clock: Clock | None = None,
    differences: Differences | None = None,
    broken: Bits | None = None,
) -> Played:
    """All rollouts, one row each; `failed` says of every device, in the plan's order, whether it would fail.

    `differences` are what devices that keep the version report, known when a wave has soaked. `broken`: which of those
    that fail could not install it, whatever their own verdict would have been. Memory grows with rows x devices: callers
    play some millions of cells at a time.
    """
    mixture = Mixture(course.targets, course.limits)
    total = failed.cumsum(axis=1, dtype=np.int32)
    table = _Table.of(course)
    worse = None
    if course.own_verdict:
        worse = total if broken is None else (failed & ~broken).cumsum(axis=1, dtype=np.int32)
    state = _State(len(failed), course, clock)
    stop_at = mixture.stop_at(failed)
    ask_at = mixture.ask_at(differences) if differences else None
    crossings = _Crossings(
        stop_at,
        np.minimum(stop_at, mixture.stop_at(failed, differences)) if differences else stop_at,
        np.full(len(failed), NEVER) if ask_at is None else ask_at,
        _first(total <= table.passes[None, 1:]),
    )
    while not state.over.all():
        state.look(_Failures(total, worse), crossings, table)
    return Played(state.stopped, state.asked, state.looks, state.waves, state.held)


@dataclass(frozen=True)
class _Crossings:
    """Number of devices at which each rollout is stopped by failures, by all it knows after a soak, asks, and may pass."""

    stop: Counts
    stop_soaked: Counts
    asks: Counts
    passes: Counts


@dataclass(frozen=True)
class _Failures:
    """How many of the first devices failed, and how many of those went back by their own verdict; rollouts x devices."""

    total: npt.NDArray[np.int32]
    worse: npt.NDArray[np.int32] | None

    def upto(self, n: Counts) -> Counts:
        """All that failed among the first n of each rollout."""
        return _at(self.total, n)

    def worse_between(self, first: Counts, last: Counts) -> Counts:
        """Those of a wave that went back by themselves."""
        return (
            np.zeros(len(last), dtype=np.int64)
            if self.worse is None
            else _at(self.worse, last) - _at(self.worse, first)
        )


class _State:
    """Where each rollout stands."""

    def __init__(self, rollouts: int, course: Course, clock: Clock | None) -> None:
        self.course, self.clock = course, clock
        self.ends = np.array(course.ends)
        self.goal = np.full(rollouts, self.ends[0])
        self.over, self.stopped, self.held, self.answered = (np.zeros(rollouts, dtype=bool) for _ in range(4))
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

    def look(self, failures: _Failures, crossings: _Crossings, table: "_Table") -> None:
        """One look at every rollout that is not over, and what it asks next."""
        going, n = ~self.over, self.asked
        seen = failures.upto(n)
        unsafe = (n >= SAFETY_MIN_DEVICES) & (seen >= self.course.limits.safety_limit * n)
        stop = going & ((crossings.stop <= n) | unsafe)
        self.looks += going
        wave_over = going & ~stop & (n >= self.goal)
        if self.clock is not None:
            self.clock.passed(wave_over, self.began, n)
        stop |= wave_over & ((crossings.stop_soaked <= n) | self._nobody_is_left(failures, seen))
        wave_over &= ~stop
        proven = crossings.passes <= n
        question = self._question(wave_over, failures, crossings)
        can_show = self.course.devices - n >= table.missing(n, seen)
        extend = wave_over & ~question & ~proven & can_show
        onward = wave_over & ~extend
        self._ask_a_person(onward, question, onward & ~question & ~proven)
        self.waves += onward
        grown = np.minimum(self.course.devices, n + np.maximum(1, (n * pace.EXTENSION).astype(np.int64)))
        following = self.ends[np.minimum(np.searchsorted(self.ends, n, side="right"), len(self.ends) - 1)]
        self.goal = np.where(extend, grown, np.where(onward, following, self.goal))
        self.stopped |= stop
        self.over |= stop | (going & (n >= self.course.devices))
        self.began = np.where(onward, n, self.began)
        self._ask(proven)

    def _nobody_is_left(self, failures: _Failures, seen: Counts) -> Bits:
        """Whether all of the wave failed, some by their own verdict; one alone says that only before anybody kept it."""
        size = self.asked - self.began
        telling = (size > 1) | (seen >= self.asked)
        return self._none_kept(failures) & telling & (failures.worse_between(self.began, self.asked) > 0)

    def _none_kept(self, failures: _Failures) -> Bits:
        lost: Bits = failures.upto(self.asked) - failures.upto(self.began) == self.asked - self.began
        return lost

    def _question(self, wave_over: Bits, failures: _Failures, crossings: _Crossings) -> Bits:
        """Who asks a person whatever the rates say: none of a wave kept it, or a signal that nobody labels has moved."""
        none_kept = wave_over & self._none_kept(failures)
        moved = wave_over & ~none_kept & (crossings.asks <= self.asked) & ~self.answered
        # Who has looked at it and let it pass is not asked the same again.
        self.answered |= moved
        return moved | none_kept

    def _ask_a_person(self, onward: Bits, question: Bits, unproven: Bits) -> None:
        """A person answers with "go on": to a question, where nobody is left who could show more, and before each wave."""
        others_wait = self.asked < self.course.devices
        doubt = unproven & (not self.course.proceeds_without_evidence)
        self.held |= question | (doubt & others_wait)
        if self.clock is not None:
            approval = onward & others_wait & self.course.approve_waves
            self.clock.waited(question | doubt | approval)


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

    def missing(self, n: Counts, failed: Counts) -> Counts:
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


def _at(cumulative: npt.NDArray[np.int32], n: Counts) -> Counts:
    """How many among the first n of each row."""
    found: Counts = np.where(n > 0, cumulative[np.arange(len(n)), n - 1], 0)
    return found


def _first(crossed: Bits) -> Counts:
    """Number of devices at the first crossing, from 1; never, where there is none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, NEVER)
