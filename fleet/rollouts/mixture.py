"""Where the mixture of all gates that may stop a rollout reaches its boundary, for thousands of imagined rollouts at once.

Capital of rates depends on counts only and is looked up. Capital of measured differences is followed device by device.
A signal whose difference is not imagined, or not known yet, keeps the capital it began with: its share of alpha.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fleet.rollouts import betting
from fleet.rollouts.gates import Limits
from fleet.rollouts.processes import WEIGHT_ALL, WEIGHT_SIGNALS, WEIGHT_TARGETS, judged

Bits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# Each device's difference by signal, rollouts x devices, positive is worse; NaN where it has none, because it went back
# or ran nothing before.
Differences = Mapping[str, Floats]

NEVER = 10**9
# Devices of which capital is looked up at once.
_BLOCK = 512
_MAX_LOG = 300.0
_LOWEST = -1.0


class Mixture:
    """All stopping gates of a rollout to devices of these targets, in order, with their shares of alpha."""

    def __init__(self, targets: Counts, limits: Limits) -> None:
        self.targets, self.limits, self.devices = targets, limits, len(targets)
        kinds = np.unique(targets)
        self.masks = [np.ones(self.devices, dtype=bool)]
        self.masks += [targets == kind for kind in kinds] if len(kinds) > 1 else []
        self.places = [mask.cumsum(dtype=np.int64) for mask in self.masks]
        signals = judged(limits.tolerated)
        self.stopping = {signal.name for signal in signals if signal.stops}
        self.asking = {signal.name for signal in signals if not signal.stops}
        self.weights, self.signal_weight = _weights(len(kinds), len(self.stopping))
        self.kinds = len(kinds)
        self.logs = logs_of(betting.stakes_above(limits.p0, limits.p1), limits.p0, 1.0)

    def stop_at(self, failed: Bits, differences: Differences | None = None) -> Counts:
        """Number of devices at which each rollout crosses; rollouts that have crossed are not looked at further."""
        found, rows = np.full(len(failed), NEVER), np.arange(len(failed))
        carry = np.zeros((len(self.masks), len(failed)), dtype=np.int64)
        drawn = {name: values for name, values in (differences or {}).items() if name in self.stopping}
        bets = [self._bets(name, values, self.signal_weight) for name, values in drawn.items()]
        idle = self.signal_weight * self.kinds * len(self.stopping - set(drawn))
        for start in range(0, self.devices, _BLOCK):
            mixed, carry = self._rates(failed[rows, start : start + _BLOCK], start, carry)
            rows, carry = self._crossed(found, rows, start, mixed + idle, bets, carry)
            if not len(rows):
                break
        return found

    def ask_at(self, differences: Differences) -> Counts | None:
        """Number of devices at which signals that only ask a person do; None where none of them changes."""
        drawn = {name: values for name, values in differences.items() if name in self.asking}
        if not drawn:
            return None
        rollouts = len(next(iter(drawn.values())))
        found, rows = np.full(rollouts, NEVER), np.arange(rollouts)
        weight = 1 / len(self.asking) / self.kinds
        bets = [self._bets(name, values, weight) for name, values in drawn.items()]
        idle = 1 - len(drawn) / len(self.asking)
        for start in range(0, self.devices, _BLOCK):
            width = min(_BLOCK, self.devices - start)
            mixed = np.full((len(rows), width), idle)
            rows, _ = self._crossed(found, rows, start, mixed, bets, np.zeros((0, len(rows)), dtype=np.int64))
            if not len(rows):
                break
        return found

    def _crossed(
        self,
        found: Counts,
        rows: Counts,
        start: int,
        mixed: betting.Array,
        bets: Sequence["_Bets"],
        carry: Counts,
    ) -> tuple[Counts, Counts]:
        """Note which rollouts have crossed within a block; the others, with what is carried on for them."""
        for bet in bets:
            mixed = mixed + bet.block(rows, start)
        hit = mixed >= 1 / self.limits.alpha
        crossed = hit.any(axis=1)
        found[rows[crossed]] = start + hit[crossed].argmax(axis=1) + 1
        return rows[~crossed], carry[:, ~crossed]

    def _rates(self, failed: Bits, start: int, carry: Counts) -> tuple[betting.Array, Counts]:
        mixed = np.zeros(failed.shape)
        columns = np.arange(failed.shape[1])
        after = np.empty_like(carry)
        for number, mask in enumerate(self.masks):
            counts = failed & mask[start : start + _BLOCK]
            k = carry[number][:, None] + counts.cumsum(axis=1)
            after[number] = k[:, -1]
            mixed += self._capital(number, start, k)[k - k.min(), columns]
        return mixed, after

    def _capital(self, number: int, start: int, k: Counts) -> betting.Array:
        """Weighted capital by failures (rows, from the fewest to the most of `k`) and device (columns) of a block."""
        n = self.places[number][start : start + _BLOCK]
        failed = np.arange(k.min(), k.max() + 1)[:, None]
        bad, good = self.logs
        logs = failed[..., None] * bad + (n[None, :] - failed)[..., None] * good
        weights = self.weights[number] * np.array(betting.ABOVE_WEIGHTS)
        capital: betting.Array = np.exp(np.minimum(logs, _MAX_LOG)) @ weights
        return capital

    def _bets(self, name: str, values: Floats, weight: float) -> "_Bets":
        return _Bets(values, self.targets, self.limits.tolerated[name], weight)


class _Bets:
    """Capital against one signal's tolerated mean, target by target, for every rollout as far as it was followed."""

    def __init__(self, values: Floats, targets: Counts, tolerated: float, weight: float) -> None:
        self.values, self.tolerated, self.weight = values, tolerated, weight
        self.targets, self.kinds = targets, np.unique(targets)
        self.logs = np.zeros((len(self.kinds), len(betting.MEAN_FRACTIONS), len(values)))

    def block(self, rows: Counts, start: int) -> betting.Array:
        """Weighted capital of the rows at hand after each device of a block."""
        values = self.values[rows, start : start + _BLOCK]
        gains = (values - self.tolerated) / max(self.tolerated - _LOWEST, 1e-6)
        # A device that went back has no numbers of its own, nor has one with nothing to compare with.
        gains[np.isnan(gains)] = 0.0
        mixed = np.zeros(gains.shape)
        for number, kind in enumerate(self.kinds):
            mine = self.targets[start : start + _BLOCK] == kind
            mixed += self._of(number, gains[:, mine], rows)[:, mine.cumsum()]
        return self.weight * mixed

    def _of(self, number: int, gains: Floats, rows: Counts) -> betting.Array:
        """Capital before the first and after each of one target's devices."""
        capital = np.zeros((gains.shape[0], gains.shape[1] + 1))
        for at, fraction in enumerate(betting.MEAN_FRACTIONS):
            before = self.logs[number, at, rows][:, None]
            logs = before + np.log1p(fraction * gains).cumsum(axis=1, dtype=np.float64)
            self.logs[number, at, rows] = logs[:, -1] if logs.shape[1] else before[:, 0]
            capital += np.exp(np.minimum(np.hstack([before, logs]), _MAX_LOG))
        return capital / len(betting.MEAN_FRACTIONS)


def logs_of(stakes: betting.Array, rate: float, sign: float) -> tuple[betting.Array, betting.Array]:
    """What a failure and a success do to the logarithm of each bet."""
    return np.log1p(sign * stakes * (1 - rate)), np.log1p(-sign * stakes * rate)


def _weights(kinds: int, signals: int) -> tuple[list[float], float]:
    """Shares of alpha: all devices together and then each target; and of one of the stopping signals on one target."""
    rates = [WEIGHT_ALL, *([WEIGHT_TARGETS / kinds] * kinds if kinds > 1 else [])]
    whole = sum(rates) + (WEIGHT_SIGNALS if signals else 0.0)
    signal = WEIGHT_SIGNALS / signals / kinds / whole if signals else 0.0
    return [weight / whole for weight in rates], signal
