"""Devices exposed to a bad version: the gate against a fixed threshold, hawkBit's rule and AWS Jobs', at equal false stops.

Waves of 1, 5, 20, 50 and 100 %, p0 = 2 %, p1 = 10 %, alpha = 5 %, beta = 10 %. The other rules look after each wave, as
documented: a threshold on the share of all devices asked; hawkBit, an integer percent of all targets of the group; AWS
Jobs, an integer percent of all that were asked once a minimum number was (the minimum that exposes fewest is taken).
Each is tuned: between two neighbouring thresholds a coin decides, weighted so that it stops good rollouts exactly as
often as the gate does. A held rollout goes on, as if a person said so. With `--p 1` and 200 devices all rules tie: two
devices are the first wave, and nobody stops a rollout for one.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleet.rollouts import replay
from fleet.rollouts.gates import Limits
from fleet.rollouts.strategy import SMALL_FLEET

SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)
AWS_MINIMUMS = (1, 5, 10, 20, 50, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to simulate."""
    parser.add_argument("--rollouts", type=int, default=4000)
    parser.add_argument("--fleet", type=int, nargs="*", default=[20, 50, 200, 1000, 5000])
    parser.add_argument("--p", type=float, nargs="*", default=[0.02, 0.05, 0.1, 0.2, 0.5])


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line for each fleet size and true rate."""
    limits = Limits()
    for devices in options.fleet:
        course = replay.Course(
            wave_ends(devices), np.zeros(devices, dtype=np.int64), limits, devices < SMALL_FLEET
        )
        good = simulate(course, limits.p0, options.rollouts, options.seed)
        for p in options.p:
            bad = simulate(course, p, options.rollouts, options.seed + 1)
            yield {
                "n_devices": devices,
                "p": p,
                "alpha": limits.alpha,
                "false_stops": round(good.stopped, 4),
                "tinyfleet": {"stopped": round(bad.stopped, 4), "exposed": round(bad.exposed, 2)},
                **rivals(good, bad),
                "n": options.rollouts,
            }


def wave_ends(devices: int) -> list[int]:
    """Cumulative sizes of the waves."""
    return sorted({max(1, math.ceil(devices * share - 1e-9)) for share in SHARES})


@dataclass(frozen=True)
class Sample:
    """Simulated rollouts at one true rate: what our gate did, and failures of each wave for all others."""

    stopped: float
    exposed: float
    waves: np.ndarray[Any, np.dtype[np.int64]]
    failures: np.ndarray[Any, np.dtype[np.int64]]  # rollouts x waves, cumulative


def simulate(course: replay.Course, p: float, rollouts: int, seed: int) -> Sample:
    """Play rollouts in blocks that fit into memory."""
    random = np.random.default_rng(seed)
    ends = np.array(course.ends)
    stopped, exposed, failures = [], [], []
    for start in range(0, rollouts, 500):
        failed = random.random((min(500, rollouts - start), course.devices), dtype=np.float32) < p
        played = replay.play(failed, course)
        stopped.append(played.stopped)
        exposed.append(played.exposed)
        failures.append(failed.cumsum(axis=1)[:, ends - 1])
    return Sample(
        float(np.concatenate(stopped).mean()),
        float(np.concatenate(exposed).mean()),
        ends,
        np.concatenate(failures),
    )


def rivals(good: Sample, bad: Sample) -> dict[str, dict[str, float]]:
    """Each rule at our false-stop rate."""
    aws = [tuned(good, bad, aws_shares(minimum)) for minimum in AWS_MINIMUMS]
    return {
        "fixed_tuned": tuned(good, bad, shares_of_all, [t / 200 for t in range(1, 201)]),
        "hawkbit": tuned(good, bad, shares_of_group),
        "aws": min(aws, key=lambda found: found["exposed"]),
    }


PERCENTS = [t / 100 for t in range(1, 101)]


def tuned(good: Sample, bad: Sample, rule: Any, thresholds: Sequence[float] = PERCENTS) -> dict[str, float]:
    """A rule's figures on bad rollouts, at the threshold (or toss between two) that matches our false stops."""
    looks_good, looks_bad = rule(good), rule(bad)
    before, false_before = math.inf, 0.0
    for threshold in sorted(thresholds, reverse=True):
        false = played(good, looks_good, threshold)[0]
        if false > good.stopped:
            toss = (good.stopped - false_before) / (false - false_before)
            upper, lower = played(bad, looks_bad, before), played(bad, looks_bad, threshold)
            stopped, exposed = ((1 - toss) * a + toss * b for a, b in zip(upper, lower, strict=True))
            return {
                "stopped": round(stopped, 4),
                "exposed": round(exposed, 2),
                "threshold": round(threshold, 3),
            }
        before, false_before = threshold, false
    stopped, exposed = played(bad, looks_bad, before)
    return {"stopped": round(stopped, 4), "exposed": round(exposed, 2), "threshold": round(before, 3)}


def played(sample: Sample, looks: np.ndarray[Any, Any], threshold: float) -> tuple[float, float]:
    """Share stopped, and devices exposed in the mean."""
    over = looks >= threshold - 1e-9
    stopped = over.any(axis=1)
    at = np.where(stopped, over.argmax(axis=1), len(sample.waves) - 1)
    return float(stopped.mean()), float(sample.waves[at].mean())


def shares_of_all(sample: Sample) -> np.ndarray[Any, Any]:
    """Failed of all that were asked, after each wave."""
    return sample.failures / sample.waves


def shares_of_group(sample: Sample) -> np.ndarray[Any, Any]:
    """Failed of each wave by itself, as hawkBit's error threshold counts."""
    failures = np.diff(sample.failures, axis=1, prepend=0)
    found: np.ndarray[Any, Any] = failures / np.diff(sample.waves, prepend=0)
    return found


def aws_shares(minimum: int) -> Any:
    """Failed of all that were asked, nothing before the minimum number."""

    def shares(sample: Sample) -> np.ndarray[Any, Any]:
        return np.where(sample.waves >= minimum, shares_of_all(sample), -1.0)

    return shares
