"""A rollout as its live page shows it: the stepped line, and each wave as a bar of what its devices came to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.dashboard import words
from fleet.inventory.models import Device
from fleet.rollouts.models import Delivery, Rollout, Wave

D = Delivery.State

# The parts of a bar, from the left: what each is called, its tone, and the states it gathers.
PARTS = (
    ("succeeded", words.GOOD, (D.SUCCEEDED,)),
    ("on trial", words.WORK, (D.TRIAL,)),
    ("at work", words.WORK, (D.OFFERED, D.DOWNLOADING, D.VERIFYING, D.TESTING)),
    ("rolled back", words.BAD, (D.ROLLED_BACK,)),
    ("failed", words.BAD, (D.FAILED,)),
    ("rejected", words.WARN, (D.REJECTED,)),
    ("timed out", words.WARN, (D.TIMED_OUT,)),
    ("not asked", words.OFF, (D.CANCELLED, D.SUPERSEDED, D.SKIPPED)),
    ("waiting", words.WAIT, (D.PENDING,)),
)


@dataclass(frozen=True)
class Part:
    """One part of a bar."""

    name: str
    tone: str
    number: int


@dataclass(frozen=True)
class WaveView:
    """One wave with its bar and the gate's last word."""

    wave: Wave
    parts: list[Part]
    total: int

    @property
    def decision(self) -> str:
        """What the gate decided."""
        return str(self.wave.verdict.get("decision", ""))

    @property
    def sentence(self) -> str:
        """Why, in a sentence."""
        return str(self.wave.verdict.get("sentence", ""))

    @property
    def words(self) -> str:
        """The bar for a screen reader."""
        return ", ".join(f"{part.number} {part.name}" for part in self.parts) or "no devices"

    @property
    def tone(self) -> str:
        """What the gate's word is painted in."""
        return {"proceed": words.GOOD, "roll_back": words.BAD, "hold": words.WARN}.get(
            self.decision, words.WAIT
        )


def waves(rollout: Rollout) -> list[WaveView]:
    """Every wave, in two queries."""
    counts: dict[int | None, Counter[str]] = {}
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL).values_list("wave_id", "state")
    for wave, state in installs:
        counts.setdefault(wave, Counter())[state] += 1
    return [
        WaveView(w, parts(counts.get(w.pk, Counter())), sum(counts.get(w.pk, Counter()).values()))
        for w in rollout.waves.all()
    ]


def parts(counts: Counter[str]) -> list[Part]:
    """The parts of a bar that hold somebody."""
    found = [Part(name, tone, sum(counts[state] for state in states)) for name, tone, states in PARTS]
    return [part for part in found if part.number]


def way_back(rollout: Rollout) -> list[Part]:
    """How far the way back is; empty before it began."""
    states = rollout.deliveries.filter(kind=Delivery.Kind.ROLL_BACK).values_list("state", flat=True)
    return parts(Counter(states))


def asked(rollout: Rollout) -> int:
    """How many active devices were offered it, which a roll-back therefore touches."""
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL, offered_at__isnull=False)
    return installs.filter(device__state=Device.State.ACTIVE).count()


def steps(rollout: Rollout, views: Sequence[WaveView]) -> list[tuple[str, str]]:
    """The stepped line: draft, each wave, the end; with done, now, stopped or nothing."""
    started = rollout.started_at is not None
    stopped = rollout.state in (Rollout.State.ROLLING_BACK, Rollout.State.ROLLED_BACK, Rollout.State.ABORTED)
    first = "done" if started else "stopped" if stopped else "now"
    found = [(words.label(rollout.state).capitalize() if not started else "Started", first)]
    found += [(f"Wave {view.wave.number}", _wave_class(view.wave)) for view in views]
    return [*found, _end(rollout)]


def _wave_class(wave: Wave) -> str:
    if wave.state == Wave.State.PASSED:
        return "done"
    if wave.state in (Wave.State.FAILED, Wave.State.HELD):
        return "stopped"
    return "" if wave.state == Wave.State.PENDING else "now"


def _end(rollout: Rollout) -> tuple[str, str]:
    ends: dict[str, tuple[str, str]] = {
        Rollout.State.SUCCEEDED: ("Succeeded", "done"),
        Rollout.State.ROLLING_BACK: ("Rolling back", "now"),
        Rollout.State.ROLLED_BACK: ("Rolled back", "stopped"),
        Rollout.State.ABORTED: ("Aborted", "stopped"),
    }
    return ends.get(rollout.state, ("Everyone", ""))


def evidence_words(evidence: dict[str, Any]) -> str:
    """What a device's trial saw, in a few words."""
    if not evidence:
        return ""
    found = []
    if evidence.get("n"):
        found.append(words.plural(int(evidence["n"]), "inference"))
    if evidence.get("labelled"):
        found.append(f"{evidence.get('correct', 0)} of {evidence['labelled']} labels right")
    if evidence.get("errors"):
        found.append(words.plural(int(evidence["errors"]), "error"))
    return ", ".join(found)
