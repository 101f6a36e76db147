"""Random halves of a fleet for two versions: pairs of devices as alike as can be, and one toss of a coin for each."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A device that could run either version."""

    device: str
    target: str
    site: str


@dataclass(frozen=True)
class Pair:
    """One device for each version; the odd one of a target has no partner and is not compared."""

    a: str
    b: str


def divide(subjects: Sequence[Subject], chance: random.Random) -> list[Pair]:
    """Pairs within target and site, then of one target across sites; who of a pair gets which version is tossed."""
    left = sorted(subjects, key=lambda each: (each.target, each.site, each.device))
    chance.shuffle(left)
    pairs: list[Pair] = []
    for stratum in (_target_and_site, _target):
        made, left = _pairs(left, stratum)
        chance.shuffle(made)
        pairs += [_tossed(first.device, second.device, chance) for first, second in made]
    return pairs + [_tossed(each.device, "", chance) for each in left]


def _target_and_site(subject: Subject) -> tuple[str, str]:
    return subject.target, subject.site


def _target(subject: Subject) -> tuple[str, str]:
    return subject.target, ""


def _pairs(
    subjects: Sequence[Subject], stratum: Callable[[Subject], tuple[str, str]]
) -> tuple[list[tuple[Subject, Subject]], list[Subject]]:
    waiting: dict[tuple[str, str], Subject] = {}
    made = []
    for subject in subjects:
        key = stratum(subject)
        partner = waiting.pop(key, None)
        if partner is None:
            waiting[key] = subject
        else:
            made.append((partner, subject))
    return made, list(waiting.values())


def _tossed(first: str, second: str, chance: random.Random) -> Pair:
    return Pair(first, second) if chance.random() < 0.5 else Pair(second, first)
