"""Finds, for every goal, the best candidate that fits the target, or the budget that binds and the nearest one."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compression_jobs.pipeline import sensitivity
from compression_jobs.pipeline.atomic import write_atomic
from compression_jobs.pipeline.candidate import Progress, Result
from compression_jobs.pipeline.dataset import check_pair, describe_dataset
from compression_jobs.pipeline.deciding import decide, refuse_unmade
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.errors import Cancelled, PipelineError, Refused, refuse_all
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.judging import edge_bytes
from compression_jobs.pipeline.ladder import LADDERS, READY, Steps
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.sandbox import run_limited
from compression_jobs.pipeline.shrinking import BLOCKS_OUT, Course, Strategy, course_for, strategies
from compression_jobs.pipeline.sparing import may_spare, spare
from compression_jobs.pipeline.targets import TARGETS, Target, refuse_unknown
from compression_jobs.pipeline.trials import Trials
from compression_jobs.pipeline.workshop import Workshop

SENSITIVITY = "sensitivity.json"
CANDIDATES_EXPECTED = 8  # that shrinking for one target takes; only the progress bar believes it

Tell = Callable[[Progress], None]


def search(
    goals: Sequence[Goal],
    model: Path,
    dataset: Path,
    *,
    out: Path,
    seed: int = 0,
    progress: Tell | None = None,
    cancelled: Callable[[], bool] | None = None,
    factors: Mapping[str, float] | None = None,
    targets: dict[str, Target] | None = None,
    effort: Effort | None = None,
    analyse: bool = False,
) -> dict[str, Result]:
    """One result a target; raises Refused for input that cannot work, Cancelled when asked to stop.

    `factors` correct latency estimates by target, `targets` adds hardware classes to the presets.
    `analyse` writes `sensitivity.json` even when nothing has to be trained.
    """
    known = TARGETS | (targets or {})
    _refuse_goals(goals, known)
    workshop = Workshop(Path(model), Path(dataset), Path(out), seed, progress, cancelled)
    trials = Trials(workshop, goals, known, factors or {}, effort or Effort())
    runtimes = {known[goal.target].runtime for goal in goals}
    workshop.steps_total = 1 + sum(len(_ladder(workshop, runtime)) for runtime in runtimes) + len(goals)
    facts = check_input(workshop)
    _climb(trials)
    courses = _courses(trials)
    blocks = _spare(trials, analyse or bool(courses))
    for course in courses:
        course.blocks = min(blocks, BLOCKS_OUT)
    _shrink(trials, [course for course in courses if not trials.meets(course.goal)])
    results = {}
    for goal in goals:
        target = known[goal.target]
        results[goal.target] = decide(workshop, goal, target, trials.found[goal.target], edge_bytes(facts))
    refuse_unmade(results.values())
    write_results(workshop.out, results)
    return results


def check_input(workshop: Workshop) -> dict[str, Any]:
    """The facts of the model; refuses a model or a dataset that cannot be used before anything is made of it."""
    workshop.tell("check", "checking the model and the dataset")
    facts = run_limited(describe_model, workshop.model, cancelled=workshop.cancelled)
    check_pair(facts, run_limited(describe_dataset, workshop.dataset, cancelled=workshop.cancelled))
    workshop.out.mkdir(parents=True, exist_ok=True)
    workshop.finished_step()
    return dict(facts)


def write_results(out: Path, results: Mapping[str, Result]) -> None:
    """Write `candidates.json`: every result with every candidate, by target."""
    shown = {target: result.as_dict() for target, result in results.items()}
    write_atomic(out / "candidates.json", json.dumps(shown, indent=2))


def _refuse_goals(goals: Sequence[Goal], known: dict[str, Target]) -> None:
    if not goals:
        raise Refused("there is no goal", remedy="name at least one target and what must survive on it")
    slugs = [goal.target for goal in goals]
    doubled = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    refuse_all([f"{slug}: two goals for one target" for slug in doubled], "give one goal a target")
    refuse_unknown(slugs, known)


def _ladder(workshop: Workshop, runtime: str) -> list[Steps]:
    return READY if workshop.is_ready else LADDERS[runtime]


def _climb(trials: Trials) -> None:
    """Make the cheap candidates; at least one, however little effort is allowed."""
    for goal in trials.goals:
        runtime = trials.known[goal.target].runtime
        for place, steps in enumerate(_ladder(trials.workshop, runtime)):
            recipe = parse_recipe(steps)
            if place == 0 or trials.affords(recipe, runtime):
                trials.candidate(recipe, goal.target)


def _spare(trials: Trials, analyse: bool) -> int:
    """Measure what each layer can spare when somebody asks, and leave layers in float where int8 costs too much.

    Returns how many residual blocks the model has, as far as that was asked.
    """
    sparing = [goal for goal in trials.goals if may_spare(trials, goal)]
    if trials.workshop.is_ready or not (sparing or analyse):
        return 0
    found = write_sensitivity(trials.workshop)
    for goal in sparing:
        spare(trials, goal, found["layers"])
    return int(found.get("blocks", 0))


def write_sensitivity(workshop: Workshop) -> dict[str, Any]:
    """Write `sensitivity.json`: what each layer can spare, or why this model cannot be asked."""
    workshop.tell("candidate", "measuring what each layer can spare")
    try:
        found = run_limited(
            sensitivity.analyse, workshop.model, workshop.dataset, cancelled=workshop.cancelled
        )
    except Cancelled:
        raise
    except PipelineError as error:
        found = {"layers": [], "reason": str(error)}
    write_atomic(workshop.out / SENSITIVITY, json.dumps(found, indent=2))
    return dict(found)


def _courses(trials: Trials) -> list[Course]:
    """The goals that no cheap candidate meets and that training may; a ready `.tflite` is not trained."""
    if trials.workshop.is_ready:
        return []
    found = [course_for(goal, trials.known[goal.target], trials.found[goal.target]) for goal in trials.goals]
    affordable = trials.effort.train_steps > 0
    return [course for course in found if course is not None and affordable]


def _shrink(trials: Trials, courses: list[Course]) -> None:
    """Train towards the goals that no cheap candidate meets, one strategy after the other."""
    workshop = trials.workshop
    workshop.steps_total += len(courses) * CANDIDATES_EXPECTED
    for strategy in strategies(several=len(courses) > 1):
        for course in courses:
            if not trials.meets(course.goal):
                _follow(trials, course, strategy(course))
    workshop.steps_total = workshop.steps_done + len(trials.goals)
    if trials.cut_short:
        trials.mark_cut_short()


def _follow(trials: Trials, course: Course, strategy: Strategy) -> None:
    """Make what a strategy asks for, and tell it what came of it, until it ends or the effort does."""
    steps = next(strategy, None)
    while steps is not None:
        recipe = parse_recipe(steps)
        if not trials.affords(recipe, course.target.runtime):
            return
        try:
            steps = strategy.send(trials.candidate(recipe, course.target.slug))
        except StopIteration:
            return
