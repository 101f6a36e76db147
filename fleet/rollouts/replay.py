"""The gate's rule for thousands of imagined rollouts at once: the same bets, looks, parts and extensions, in arrays.

A test plays single rollouts through `gates.evaluate` as well and finds the same answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fleet.rollouts import betting, pace
from fleet.rollouts.gates import SAFETY_MIN_DEVICES, Limits
from fleet.rollouts.processes import WEIGHT_ALL, WEIGHT_SIGNALS, WEIGHT_TARGETS

Bits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

# Cells of rollouts x devices that are looked at at once, and devices of which capital is looked up at once.
_CELLS = 4_000_000
_BLOCK = 512
_NEVER = 10**9
_MAX_LOG = 300.0


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


def play(failed: Bits, course: Course, clocks: Callable[[int], Clock] | None = None) -> Played:
    """All rollouts, one row each; `failed` says of every device, in the plan's order, whether it would fail.

    `clocks` makes a clock for so many rollouts at a time.
    """
    mixture = _Mixture(course)
    parts = [
        _play_some(rows, course, mixture, clocks(len(rows)) if clocks else None) for rows in _chunks(failed)
    ]
    return Played(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _chunks(failed: Bits) -> Iterator[Bits]:
    size = max(1, _CELLS // max(1, failed.shape[1]))
    for start in range(0, len(failed), size):
        yield failed[start : start + size]


def _play_some(
    failed: Bits, course: Course, mixture: "_Mixture", clock: Clock | None
) -> tuple[Bits, Counts, Counts, Counts, Bits]:
    total = failed.cumsum(axis=1, dtype=np.int32)
    table = _Table.of(course)
    state = _State(len(failed), course, clock)
    stop_at = mixture.stop_at(failed)
    pass_at = _first(total <= table.passes[None, 1:])
    while not state.over.all():
        state.look(total, stop_at, pass_at, table)
    return state.stopped, state.asked, state.looks, state.waves, state.held


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

    def look(self, total: npt.NDArray[np.int32], stop_at: Counts, pass_at: Counts, table: "_Table") -> None:
        """One look at every rollout that is not over, and what it asks next."""
        going, n = ~self.over, self.asked
        seen = total[np.arange(len(n)), n - 1]
        limit = self.course.limits.safety_limit
        unsafe = (n >= SAFETY_MIN_DEVICES) & (seen >= limit * n)
        stop = going & ((stop_at <= n) | unsafe)
        self.looks += going
        wave_over = going & ~stop & (n >= self.goal)
        if self.clock is not None:
            self.clock.passed(wave_over, n - self.began)
        if self.course.own_verdict:
            before = np.where(self.began > 0, total[np.arange(len(n)), self.began - 1], 0)
            nobody = wave_over & (seen - before == n - self.began)
            stop, wave_over = stop | nobody, wave_over & ~nobody
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
        pass_logs = _bets(betting.stakes_below(limits.p1), limits.p1, -1.0)
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


def _weights(course: Course) -> list[float]:
    """Shares of alpha: all devices together, then each target; what measured differences may add is left out."""
    kinds = len(np.unique(course.targets))
    weights = [WEIGHT_ALL, *([WEIGHT_TARGETS / kinds] * kinds if kinds > 1 else [])]
    whole = sum(weights) + (WEIGHT_SIGNALS if course.limits.tolerated else 0.0)
    return [weight / whole for weight in weights]


class _Mixture:
    """Where the mixture of all stopping gates reaches its boundary; capital is looked up, because it depends on counts only."""

    def __init__(self, course: Course) -> None:
        kinds = np.unique(course.targets)
        self.limits, self.devices, self.weights = course.limits, course.devices, _weights(course)
        self.masks = [np.ones(course.devices, dtype=bool)]
        self.masks += [course.targets == kind for kind in kinds] if len(kinds) > 1 else []
        self.places = [mask.cumsum(dtype=np.int64) for mask in self.masks]
        self._capital: dict[tuple[int, int], betting.Array] = {}

    def stop_at(self, failed: Bits) -> Counts:
        """Number of devices at which each rollout crosses; rollouts that have crossed are not looked at further."""
        found = np.full(len(failed), _NEVER)
        rows = np.arange(len(failed))
        carry = np.zeros((len(self.masks), len(failed)), dtype=np.int64)
        for start in range(0, self.devices, _BLOCK):
            hit, carry = self._block(failed[rows, start : start + _BLOCK], start, carry)
            crossed = hit.any(axis=1)
            found[rows[crossed]] = start + hit[crossed].argmax(axis=1) + 1
            rows, carry = rows[~crossed], carry[:, ~crossed]
            if not len(rows):
                break
        return found

    def _block(self, failed: Bits, start: int, carry: Counts) -> tuple[Bits, Counts]:
        mixed = np.zeros(failed.shape)
        columns = np.arange(failed.shape[1])
        after = np.empty_like(carry)
        for number, mask in enumerate(self.masks):
            counts = failed & mask[start : start + _BLOCK]
            k = carry[number][:, None] + counts.cumsum(axis=1)
            after[number] = k[:, -1]
            table = self._table(number, start)
            mixed += table[np.minimum(k, len(table) - 1), columns]
        hit: Bits = mixed >= 1 / self.limits.alpha
        return hit, after

    def _table(self, number: int, start: int) -> betting.Array:
        """Weighted capital by failures (rows) and device (columns); the last row has crossed by itself."""
        if (number, start) not in self._capital:
            limits, weight = self.limits, self.weights[number]
            n = self.places[number][start : start + _BLOCK]
            alone = _stop_table(limits.p0, limits.p1, limits.alpha * weight, len(self.masks[0]))
            k = np.arange(min(int(alone[n].max(initial=0)), int(n.max(initial=0))) + 1)[:, None]
            bad, good = _bets(betting.stakes_above(limits.p0, limits.p1), limits.p0, 1.0)
            logs = k[..., None] * bad + (n[None, :] - k)[..., None] * good
            capital = np.exp(np.minimum(logs, _MAX_LOG)) @ np.array(betting.ABOVE_WEIGHTS)
            self._capital[number, start] = weight * capital
        return self._capital[number, start]


@lru_cache(maxsize=32)
def _stop_table(p0: float, p1: float, alpha: float, most: int) -> Counts:
    bets = _bets(betting.stakes_above(p0, p1), p0, 1.0)
    return _walk_up(*bets, np.log(np.array(betting.ABOVE_WEIGHTS)), float(np.log(1 / alpha)), most)


@lru_cache(maxsize=32)
def _pass_table(p1: float, beta: float, most: int) -> Counts:
    bets = _bets(betting.stakes_below(p1), p1, -1.0)
    even = np.log(np.full(len(bets[0]), 1 / len(bets[0])))
    return _walk_down(*bets, even, float(np.log(1 / beta)), most)


def _first(crossed: Bits) -> Counts:
    """Number of devices at the first crossing, from 1; never, where there is none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, _NEVER)
