"""How long a played rollout takes: deliveries, tries, windows, rates, budgets, soaks, and what people take to answer.

Time is a model: a delivery takes half its usual time and then a random rest (exponential, so that half of them take longer
than usual); devices that are away keep a wave waiting for its time-out. People answer after a time of which half is
`Fleet.answer_s` or less (exponential too): who approves, who is asked by a gate, and owners of devices that ask; all of them
say yes.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fleet.rollouts import admission, replay, windows
from fleet.rollouts.betting import Array
from fleet.rollouts.conditions import A_MONTH, DAY_S, Window
from fleet.rollouts.imagined import Fleet
from fleet.rollouts.mixture import Bits, Counts
from fleet.rollouts.planning import Share
from fleet.rollouts.strategy import Strategy

USUAL_S = 60.0
OPENINGS = 200
# What nobody answers ends by then.
_MOST_S = A_MONTH.total_seconds()


class Duration:
    """Seconds since the start, a number for each rollout.

    `lost` says how many of the first devices, from none on, fail in every try; rollouts x devices.
    """

    def __init__(
        self,
        lost: npt.NDArray[np.int32],
        shares: Sequence[Share],
        fleet: Fleet,
        rules: Strategy,
        random: np.random.Generator,
    ) -> None:
        self.fleet, self.rules, self.random, self.lost = fleet, rules, random, lost
        rollouts = len(lost)
        self.seconds: Array = np.zeros(rollouts)
        usual = [fleet.seconds.get(share.target, USUAL_S) * (1 + len(share.hops)) for share in shares]
        self.usual = float(np.mean(usual))
        self.days = max(_days(share) for share in shares)
        self.openings = _openings(shares, fleet, rules)
        self.busiest = _busiest_site(shares)
        self.ladder = _ladder(rules, self.usual)
        self.asking = np.cumsum([0, *(share.asks for share in shares)])
        self.answered = np.zeros(rollouts, dtype=np.int64)
        self.opened = self.seconds
        self.opens = np.ones(rollouts, dtype=bool)
        if rules.require_approval:
            self.waited(self.opens)

    @property
    def as_clock(self) -> replay.Clock:
        """As the replay takes it."""
        return replay.Clock(self.asked, self.passed, self.waited)

    def asked(self, rollouts: Bits, before: Counts, after: Counts) -> None:
        """Wait for the window, keep to the rate and the site's budget, then wait for the slowest."""
        devices = np.where(rollouts, after - before, 0)
        asking = devices > 0
        self.opened = np.where(asking & self.opens, self.seconds, self.opened)
        self.opens = self.opens & ~asking
        if len(self.openings):
            starts, ends = self.openings.T
            at = np.minimum(np.searchsorted(ends, self.seconds, side="right"), len(starts) - 1)
            self.seconds = np.where(asking, np.maximum(self.seconds, starts[at]), self.seconds)
        earliest = np.where(asking, self._earliest(after), 0.0)
        self.seconds = np.maximum(self.seconds, earliest)
        spent = self._at_the_rate(devices, before) + self.usual / 2 * (1 + self._slowest(devices))
        spent += self._tried_again(devices, before, after) + DAY_S * self.days
        self.seconds = self.seconds + np.where(asking, spent, 0.0)

    def passed(self, rollouts: Bits, first: Counts, last: Counts) -> None:
        """Hear of the last owner, then soak; and if one of the wave was away, its time-out comes first."""
        self._hear_owners(rollouts, last)
        wave = np.maximum(last - first, 0)
        somebody = self.random.random(len(wave)) < 1 - (1 - self.fleet.away) ** wave
        waited = self.rules.soak_seconds + np.where(somebody, float(self.rules.delivery_timeout_s), 0.0)
        self.seconds = self.seconds + np.where(rollouts, waited, 0.0)
        self.opens = self.opens | rollouts

    def waited(self, rollouts: Bits) -> None:
        """A person answers."""
        answer = self.fleet.answer_s * self._slowest(np.ones(len(rollouts), dtype=np.int64))
        self.seconds = self.seconds + np.where(rollouts, np.minimum(answer, _MOST_S), 0.0)

    def _hear_owners(self, rollouts: Bits, last: Counts) -> None:
        """Owners are asked when the wave opens; what they take goes on beside the others' deliveries."""
        owners = np.where(rollouts, self.asking[last] - self.asking[self.answered], 0)
        limit = self.rules.step_timeouts.consent or _MOST_S
        answer = np.minimum(self.fleet.answer_s * self._slowest(owners), limit)
        heard = self.opened + answer + self.usual
        self.seconds = np.where(owners > 0, np.maximum(self.seconds, heard), self.seconds)
        self.answered = np.where(rollouts, last, self.answered)

    def _slowest(self, many: Counts) -> Array:
        """The largest of so many random times of which half are 1 or less, drawn at once."""
        rest: Array = -np.log1p(-self._largest(many)) / np.log(2)
        return rest

    def _largest(self, many: Counts) -> Array:
        """The largest of so many uniform random numbers, drawn at once, and never 1 itself."""
        drawn: Array = self.random.random(len(many)) ** (1 / np.maximum(many, 1))
        return np.minimum(drawn, 1 - 1e-12)

    def _tried_again(self, devices: Counts, before: Counts, after: Counts) -> Array:
        """Waits and deliveries of the device that needs most tries; one that never comes through needs all."""
        most = len(self.ladder)
        if most == 1:
            return np.zeros(len(devices))
        tries = np.ones(len(devices), dtype=np.int64)
        if flaky := min(self.fleet.flaky, 0.99):
            left = 1 - (1 - flaky**most) * self._largest(devices)
            tries = np.clip(np.ceil(np.log(left) / np.log(flaky)), 1, most).astype(np.int64)
        rows = np.arange(len(devices))
        tries = np.where(self.lost[rows, after] > self.lost[rows, before], most, tries)
        waits: Array = self.ladder[tries - 1]
        return waits

    def _at_the_rate(self, devices: Counts, before: Counts) -> Array:
        rate = self.rules.rate
        if rate is None:
            return np.zeros(len(devices))
        steps = np.minimum(before // rate.after_successes, 60)
        per_minute = np.minimum(rate.per_minute * rate.factor**steps, rate.most_per_minute)
        waits: Array = 60.0 * np.maximum(0, np.ceil(devices / per_minute) - 1)
        return waits

    def _earliest(self, after: Counts) -> Array:
        """When the busiest site may have taken the bytes of all these devices."""
        budget = self.rules.budgets.site_bytes_per_day
        if budget is None or not self.busiest:
            return np.zeros(len(after))
        days: Array = np.ceil(after * self.busiest / budget - 1e-9) - 1
        return DAY_S * np.maximum(0, days)


def _ladder(rules: Strategy, usual: float) -> Array:
    """Seconds that the waits and deliveries of one try, two, three take beyond the first."""
    steps = [admission.wait_before_try(rules, tried) + usual for tried in range(rules.retry.attempts - 1)]
    return np.cumsum([0.0, *steps])


def _days(share: Share) -> int:
    """Whole days for which a device must wait because versions on the way take more than its bytes of one day."""
    if share.bytes_per_day is None:
        return 0
    return max(0, -(-share.transport_bytes // share.bytes_per_day) - 1)


def _busiest_site(shares: Sequence[Share]) -> float:
    """Bytes at the busiest site for each device that is asked anywhere."""
    sizes: Counter[str] = Counter()
    for share in shares:
        if share.site:
            sizes[share.site] += share.transport_bytes
    return max(sizes.values(), default=0) / max(1, len(shares))


def _openings(shares: Sequence[Share], fleet: Fleet, rules: Strategy) -> Array:
    """Windows of the most common time zone as rows (start, end), in seconds from now; enough of them for any rollout."""
    if rules.window is None or not shares:
        return np.zeros((0, 2))
    zone = Counter(share.zone for share in shares).most_common(1)[0][0]
    return np.array(_opening_times(rules.window.model_dump_json(), zone, fleet.now))


@lru_cache(maxsize=64)
def _opening_times(window: str, zone: str, now: datetime) -> list[tuple[float, float]]:
    rule, at = Window.model_validate_json(window), now
    found: list[tuple[float, float]] = []
    while len(found) < OPENINGS:
        opening = windows.opening(rule, zone, at)
        if opening is None:
            break
        found.append(((opening.start - now).total_seconds(), (opening.end - now).total_seconds()))
        at = max(opening.end, at + timedelta(minutes=1))
    return found
