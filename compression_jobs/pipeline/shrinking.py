"""What a search tries when no cheap candidate fits: training with int8 imitated, channels, students, blocks.

Each strategy is a generator: it yields a recipe, is sent the measured candidate, and decides what comes next.
"Network Adaptation" in the sense of Yang et al. 2018 (NetAdapt): guided by measured budgets, not by proxies.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from compression_jobs.pipeline.candidate import Candidate
from compression_jobs.pipeline.deciding import accuracy_of
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.judging import missed_budgets, missed_goals
from compression_jobs.pipeline.ladder import FLOAT, Steps, int8
from compression_jobs.pipeline.targets import Target

Strategy = Generator[Steps, Candidate, None]

RUNG = 0.2  # share of the channels that one step of pruning takes
RUNGS = 10
SLACK = 1.25  # estimates may be wrong by so much before a rung is skipped
STEPS_A_RUNG = 150
QAT_STEPS = 150
STUDENT_STEPS = 900
ELASTIC_STEPS = 500
FOR_WEIGHTS = 0.9  # of the flash; the rest holds what every artifact has beside its weights
BLOCKS_OUT = 1  # residual blocks that a sub-network may lack
WIDTHS = (8, 4)  # sub-networks are taken in eighths of the channels, down to a quarter


@dataclass
class Course:
    """The way down for one goal: where it starts, how int8 is made there, and what was found so far."""

    goal: Goal
    target: Target
    base: Candidate  # the cheap candidate to start from
    share: float  # of the channels, about what the tightest budget leaves
    blocks: int = 0  # residual blocks that a sub-network may lack
    best_share: float | None = None  # the smallest share of channels that kept what must survive

    @property
    def options(self) -> dict[str, Any]:
        """The options of the quantize step that served the base; none when it is in float."""
        return next((step["options"] for step in self.base.recipe if step["name"] == "quantize"), {})

    @property
    def granularity(self) -> str:
        """How weights are scaled."""
        return str(self.options.get("granularity", "per_channel"))

    def plain(self, trained: Steps) -> Steps:
        """The recipe that quantises after training."""
        return [FLOAT, *trained, int8(granularity=self.granularity, calibration="mse")]

    def aware(self, trained: Steps) -> Steps:
        """The recipe that trains with int8 imitated before it quantises."""
        qat = {"name": "qat", "options": {"steps": QAT_STEPS, "granularity": self.granularity}}
        return self.plain([*trained, qat])

    def keeps(self, candidate: Candidate) -> bool:
        """Whether what must survive survives, budgets aside."""
        return candidate.was_measured and not missed_goals(candidate, self.goal)

    def fits(self, candidate: Candidate) -> bool:
        """Whether all budgets hold."""
        return candidate.was_measured and not missed_budgets(candidate, self.target)

    def is_done(self, candidate: Candidate) -> bool:
        """Whether the goal is met."""
        return self.keeps(candidate) and self.fits(candidate)


def course_for(goal: Goal, target: Target, candidates: list[Candidate]) -> Course | None:
    """Where to start; None when a cheap candidate meets the goal, or nothing could be measured or can be reached."""
    measured = [each for each in candidates if each.was_measured]
    if not measured or any(each.rejected is None for each in measured) or not _reachable(goal, measured[0]):
        return None
    quantized = [each for each in measured if each.lineage["output"] is not None] or measured
    keeping = [each for each in quantized if not missed_goals(each, goal)]
    if keeping:
        base = min(keeping, key=lambda each: (each.bytes, -accuracy_of(each)))
    else:
        base = min(quantized, key=lambda each: (-accuracy_of(each), each.bytes))
    return Course(goal, target, base, share_left(base, target))


def _reachable(goal: Goal, candidate: Candidate) -> bool:
    """Whether the original is accurate enough itself; training to shrink is not made to beat it."""
    reference = candidate.reference_accuracy
    return goal.min_accuracy is None or reference is None or bool(reference["value"] >= goal.min_accuracy)


def share_left(candidate: Candidate, target: Target) -> float:
    """The share of channels at which the budgets about hold: weights and multiplications go with its square."""
    shares = [1.0, (target.flash_bytes / candidate.bytes) ** 0.5]
    if candidate.peak_ram_bytes and candidate.format != "onnx":
        shares.append(target.ram_bytes / candidate.peak_ram_bytes)
    if target.latency_us and candidate.estimated_latency_us:
        shares.append((target.latency_us / candidate.estimated_latency_us) ** 0.5)
    return float(max(min(shares), 0.01))


# --- strategies ----------------------------------------------------------------------------------


def imitated(course: Course) -> Strategy:
    """Int8 imitated while training: for models that fit and lose too much by rounding."""
    if course.fits(course.base) and not course.keeps(course.base):
        yield course.aware([])


def thinned(course: Course) -> Strategy:
    """Channels taken out rung by rung; each rung goes on from the one before."""
    trained: Steps = []
    share = 1.0
    for _ in range(RUNGS):
        trained.append(_prune(RUNG))
        share *= 1 - RUNG
        if share > course.share * SLACK:
            continue
        found = yield course.plain(trained)
        if course.fits(found) and not course.keeps(found):
            found = yield course.aware(trained)
        if not found.was_measured or (course.fits(found) and not course.keeps(found)):
            yield course.aware([*trained[:-1], _prune(RUNG / 2)])
            return
        if course.is_done(found):
            return


def _prune(ratio: float, scope: str = "per_layer") -> dict[str, Any]:
    options = {"ratio": ratio, "rounds": 1, "steps": STEPS_A_RUNG, "importance": "taylor", "scope": scope}
    return {"name": "prune_channels", "options": options}


def weighed(course: Course) -> Strategy:
    """Channels taken out at once, more of them where the net is less sensitive."""
    share = min(course.share * SLACK, 1 - RUNG)
    for _ in range(RUNGS):
        step = _prune(round(1 - share, 3), "sensitivity")
        step["options"] |= {"rounds": 3, "steps": 3 * STEPS_A_RUNG}
        found = yield course.plain([step])
        if course.fits(found) and not course.keeps(found):
            found = yield course.aware([step])
        if not found.was_measured or course.fits(found):
            return
        share *= 1 - RUNG / 2


def taught(course: Course) -> Strategy:
    """A narrower student from fresh weights, taught by the original."""
    width = min(course.share * SLACK, 1.0)
    for _ in range(RUNGS):
        student = {"name": "distill", "options": {"width": round(width, 3), "steps": STUDENT_STEPS}}
        found = yield course.plain([student])
        if course.fits(found) and not course.keeps(found):
            found = yield course.aware([student])
        if not found.was_measured or course.fits(found):
            return
        width *= 1 - RUNG / 2


def sized(course: Course) -> Strategy:
    """A PhiNet sized by the target's budgets, taught by the original; models that read no pictures refuse it."""
    flash = course.target.flash_bytes * FOR_WEIGHTS
    for _ in range(RUNGS):
        options = {"student": "phinet", "steps": STUDENT_STEPS, "flash_bytes": round(flash)}
        student = {"name": "distill", "options": {**options, "ram_bytes": course.target.ram_bytes}}
        found = yield course.plain([student])
        if course.fits(found) and not course.keeps(found):
            found = yield course.aware([student])
        if not found.was_measured or course.fits(found):
            return
        flash *= 1 - RUNG


def shortened(course: Course) -> Strategy:
    """Residual blocks left out first, so that what remains may stay wider."""
    trained: Steps = [{"name": "drop_layers", "options": {"blocks": 1, "steps": 2 * STEPS_A_RUNG}}]
    for _ in range(RUNGS):
        found = yield course.plain(trained)
        if course.fits(found) and not course.keeps(found):
            found = yield course.aware(trained)
        if not found.was_measured or course.fits(found):
            return
        trained.append(_prune(RUNG))


def shared(course: Course) -> Strategy:
    """Sub-networks of one elastic net, which all targets share; none of them is trained again."""
    options = {"steps": ELASTIC_STEPS, "narrowest": 1 / WIDTHS[-1], "blocks": course.blocks}
    for width in [part / WIDTHS[0] for part in range(WIDTHS[0] - 1, 0, -1)]:
        if width > course.share * SLACK or width * WIDTHS[-1] < 1:
            continue
        for out in range(course.blocks + 1):
            subnet = {"name": "subnet", "options": {"width": width, "blocks_out": out}}
            found = yield course.plain([{"name": "elastic", "options": options}, subnet])
            whole_fits = out == 0 and course.fits(found)
            if not found.was_measured or course.is_done(found) or whole_fits:
                return
            if course.fits(found):
                break  # and loses too much: a narrower one with all its blocks may not


def strategies(several: bool) -> list[Callable[[Course], Strategy]]:
    """What to try in which order; an elastic net pays when several targets share it."""
    return [imitated, *([shared] if several else []), thinned, weighed, taught, shortened, sized]
