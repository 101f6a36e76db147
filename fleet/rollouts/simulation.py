"""Thousands of rollouts played before the first one starts: how long, how many bytes, who is exposed, what is caught.

The gates' rule is the real one (replay.py), on devices and people as they are imagined (imagined.py, duration.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.errors import Refused
from fleet.rollouts import imagined, replay
from fleet.rollouts.betting import Array
from fleet.rollouts.duration import USUAL_S, Duration
from fleet.rollouts.gates import Limits
from fleet.rollouts.imagined import Fleet, Truth
from fleet.rollouts.mixture import Bits, Counts
from fleet.rollouts.planning import Plan
from fleet.rollouts.strategy import Strategy

# Rollouts x devices that one simulation may cost.
CELLS, CELLS_AT_ONCE = 20_000_000, 4_000_000
MOST_ROLLOUTS, LEAST_ROLLOUTS = 10_000, 100


@dataclass(frozen=True)
class Simulated:
    """Every simulated rollout."""

    stopped: Bits
    held: Bits
    exposed: Counts
    seconds: Array
    bytes: Counts

    @property
    def n(self) -> int:
        """How many were played."""
        return len(self.stopped)

    @property
    def missed(self) -> float:
        """Share of rollouts that went to everybody, with nobody asked on the way."""
        return float((~self.stopped & ~self.held).mean())


def histogram(values: npt.NDArray[Any], bins: int = 20) -> list[tuple[float, float, int]]:
    """(from, to, how many) in bins of one width; a bin of integers holds whole numbers, from the first to the last."""
    if np.issubdtype(values.dtype, np.integer):
        low, span = int(values.min()), int(np.ptp(values)) + 1
        width = -(-span // bins)
        starts = np.arange(low, low + span, width)
        counts, _ = np.histogram(values, bins=[*starts, starts[-1] + width])
        return [(float(a), float(a + width - 1), int(n)) for n, a in zip(counts, starts, strict=True)]
    counts, edges = np.histogram(values.astype(float), bins=bins)
    return [(float(a), float(b), int(n)) for n, a, b in zip(counts, edges, edges[1:], strict=False)]


def simulate(
    plan: Plan,
    fleet: Fleet,
    truth: Truth,
    *,
    rules: Strategy | None = None,
    rollouts: int = 2000,
    seed: int = 0,
) -> Simulated:
    """Play the plan again and again, by default with the default strategy; what is held goes on, as if a person said so."""
    shares, rules = plan.shares, rules or Strategy()
    if not shares:
        raise Refused("a plan without devices cannot be played", remedy="Choose a group that has some.")
    cells = CELLS // imagined.numbers_of_a_device(plan, truth, rules)
    rollouts = max(1, min(rollouts, MOST_ROLLOUTS, max(LEAST_ROLLOUTS, cells // len(shares))))
    random = np.random.default_rng(seed)
    course = course_of(plan, rules, truth)
    at_once = max(1, CELLS_AT_ONCE // len(shares))
    played, seconds = [], []
    for start in range(0, rollouts, at_once):
        failed, broken = _failures(min(at_once, rollouts - start), plan, fleet, truth, rules, random)
        clock = Duration(_upto(broken), shares, fleet, rules, random)
        drawn = imagined.differences(failed, plan, fleet, truth, rules, random)
        played.append(replay.play(failed, course, clock.as_clock, drawn, broken))
        seconds.append(clock.seconds)
    stopped, held, exposed = (
        np.concatenate([getattr(each, name) for each in played]) for name in ("stopped", "held", "exposed")
    )
    sizes = np.cumsum([share.transport_bytes for share in shares])
    return Simulated(stopped, held, exposed, np.concatenate(seconds), sizes[exposed - 1])


def _failures(
    rollouts: int, plan: Plan, fleet: Fleet, truth: Truth, rules: Strategy, random: np.random.Generator
) -> tuple[Bits, Bits]:
    """Which devices fail, and which of those could not install it: the version's fault, or every try was bad luck."""
    shape = (rollouts, plan.devices)
    failed = random.random(shape, dtype=np.float32) < truth.rates(plan.shares)
    unlucky = np.zeros(shape, dtype=bool)
    if fleet.flaky:
        unlucky = random.random(shape, dtype=np.float32) < fleet.flaky**rules.retry.attempts
    return failed | unlucky, unlucky if truth.own_verdict else failed | unlucky


def _upto(which: Bits) -> npt.NDArray[np.int32]:
    """How many among the first devices, from none on; rollouts x (devices + 1)."""
    found = np.zeros((which.shape[0], which.shape[1] + 1), dtype=np.int32)
    which.cumsum(axis=1, dtype=np.int32, out=found[:, 1:])
    return found


def course_of(plan: Plan, rules: Strategy, truth: Truth) -> replay.Course:
    """The plan as the replay sees it."""
    numbers = {target: n for n, target in enumerate(sorted({share.target for share in plan.shares}))}
    return replay.Course(
        ends=[int(end) for end in np.cumsum([len(wave) for wave in plan.waves])],
        targets=np.array([numbers[share.target] for share in plan.shares], dtype=np.int64),
        limits=Limits.of(rules),
        proceeds_without_evidence=rules.proceeds_without_evidence(plan.devices),
        own_verdict=truth.own_verdict,
        paced=rules.is_paced(plan.devices),
        approve_waves=rules.approve_waves,
    )


def assumptions(plan: Plan, fleet: Fleet, truth: Truth, rules: Strategy) -> list[str]:
    """What a simulation takes for granted about this fleet, a sentence each."""
    shares, judged = plan.shares, rules.tolerances()
    targets = sorted({share.target for share in shares})
    usual = [f"{fleet.seconds.get(target, USUAL_S):.0f} s on {target}" for target in targets]
    asked = sum(share.asks for share in shares)
    people = f"Half of the people who are asked answer within {fleet.answer_s / 3600:.3g} hours, and say yes"
    people += f"; {asked} of {plan.devices} devices ask their owner." if asked else "."
    found = [f"A delivery takes {', '.join(usual)} in the middle.", people]
    found.append(f"{fleet.away:.0%} of devices are away when they are asked.")
    if fleet.flaky:
        tries = rules.retry.attempts
        found.append(f"{fleet.flaky:.1%} of tries fail for a reason that passes; there are {tries} in all.")
    for name in sorted(truth.moved & set(judged)):
        noise = fleet.noise.get(name, imagined.USUAL_NOISE)
        found.append(f"Devices differ in {name.replace('_', ' ')} by {noise:.3g} (standard deviation).")
    if plan.held_targets:
        found.append(f"{len(plan.held_back)} devices are held back and compared with.")
    return found
