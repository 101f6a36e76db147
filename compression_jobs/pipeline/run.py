"""Runs one recipe for one target: make, measure, publish when it fits and keeps what must survive."""

from collections.abc import Callable, Mapping
from pathlib import Path

from compression_jobs.pipeline.candidate import Candidate, Progress, Result
from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.judging import judge, missed_budgets, missed_goals
from compression_jobs.pipeline.pareto import mark_front
from compression_jobs.pipeline.publish import keep_nearest, passes_test, publish, withdraw
from compression_jobs.pipeline.recipe import Recipe, Step, describe
from compression_jobs.pipeline.search import check_input, write_results
from compression_jobs.pipeline.shrinking import FOR_WEIGHTS
from compression_jobs.pipeline.targets import TARGETS, Target, refuse_unknown
from compression_jobs.pipeline.wording import verdict
from compression_jobs.pipeline.workshop import Workshop


def run(
    recipe: Recipe,
    model: Path,
    dataset: Path,
    target: str,
    *,
    out: Path,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    goal: Goal | None = None,
    targets: dict[str, Target] | None = None,
    others: Mapping[str, Path] | None = None,
) -> Result:
    """The measured result of `recipe`; met when it fits the target and, if there is one, meets the goal.

    `others` are the models that options name, such as a student of one's own. Raises Refused when it cannot be made.
    """
    known = TARGETS | (targets or {})
    refuse_unknown([target], known)
    place = known[target]
    recipe = sized_for(recipe, place)
    _refuse_missing(recipe, others or {})
    workshop = Workshop(
        Path(model), Path(dataset), Path(out), seed, progress, cancelled, steps_total=3, others=others or {}
    )
    check_input(workshop)
    workshop.tell("candidate", f"making {describe(recipe)} for {place.runtime}")
    candidate = workshop.candidate(recipe, place.runtime).for_target(target)
    if not candidate.was_measured:
        raise Refused(candidate.rejected or "the recipe could not be run")
    judge(candidate, goal, place)
    mark_front([candidate])
    workshop.finished_step()
    result = _published(workshop, candidate, goal, place)
    workshop.tell("publish", result.sentence, candidate)
    write_results(workshop.out, {target: result})
    return result


def sized_for(recipe: Recipe, target: Target) -> Recipe:
    """The recipe with the budgets of PhiNets that were left open taken from the target."""
    free = {"ram_bytes": target.ram_bytes, "flash_bytes": round(target.flash_bytes * FOR_WEIGHTS)}
    steps = []
    for step in recipe.steps:
        options = step.as_dict()["options"]
        if options.get("student") == "phinet":
            options |= {name: options[name] or size for name, size in free.items()}
            step = Step(name=step.name, options=options)
        steps.append(step)
    return Recipe(steps=tuple(steps))


def _refuse_missing(recipe: Recipe, others: Mapping[str, Path]) -> None:
    missing = [name for name in recipe.models_named if name not in others]
    refuse_all([f"{name}: the recipe names this model, and it was not given" for name in missing])


def _published(workshop: Workshop, candidate: Candidate, goal: Goal | None, target: Target) -> Result:
    withdraw(workshop, target)
    missed = missed_budgets(candidate, target) + (missed_goals(candidate, goal) if goal else [])
    if missed:
        candidate.rejected = "; ".join(sentence for _, sentence in missed)
        keep_nearest(workshop, candidate, target)
        sentence = f"{target.slug}: {candidate.id} is not published. {candidate.rejected}."
        return Result(target.slug, False, False, None, [candidate], sentence, missed[0][0])
    if not passes_test(workshop, candidate, goal, target):
        keep_nearest(workshop, candidate, target)
        sentence = f"{target.slug}: {candidate.id} is not published, {candidate.rejected}."
        return Result(target.slug, False, False, None, [candidate], sentence, "test rows")
    publish(workshop, candidate, target)
    assert candidate.test_accuracy is not None
    sentence = (
        f"{target.slug}: {candidate.id} has {candidate.bytes} bytes and is "
        f"{verdict(candidate.test_accuracy)} on the test rows (n = {candidate.test_accuracy['n']})."
    )
    shown = goal is None or candidate.shown
    return Result(target.slug, True, shown, candidate, [candidate], sentence)
