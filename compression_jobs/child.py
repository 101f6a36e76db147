"""What runs in a job's child process: the pipeline alone, telling its progress line by line into a file.

The worker's own process loads neither models nor torch, and ends this one at once when the job is cancelled.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.candidate import Progress, Result
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.recipe import Recipe
from compression_jobs.pipeline.targets import Target


def compress(plan: dict[str, Any], model: Path, dataset: Path, out: Path, told: Path) -> dict[str, Any]:
    """Run a recipe, or search for the goals, and return the result of each target as JSON."""
    with told.open("a") as lines:

        def tell(progress: Progress) -> None:
            lines.write(json.dumps(asdict(progress)) + "\n")
            lines.flush()

        results = _results(plan, model, dataset, out, tell)
    return {slug: result.as_dict() for slug, result in results.items()}


def _results(plan: dict[str, Any], model: Path, dataset: Path, out: Path, tell: Any) -> dict[str, Result]:
    # Imported here, because these load onnx, and every Celery process imports this module for its name.
    from compression_jobs.pipeline.run import run
    from compression_jobs.pipeline.search import search

    targets = {each["slug"]: Target.model_validate(each) for each in plan["targets"]}
    goals = {slug: _goal(slug, plan["goals"]) for slug in targets}
    told: dict[str, Any] = {"out": out, "seed": plan["seed"], "progress": tell, "targets": targets}
    if plan["recipe"] is None:
        wanted = [goal for goal in goals.values() if goal is not None]
        told |= {"factors": plan["factors"], "effort": Effort.model_validate(plan["effort"])}
        return search(wanted, model, dataset, analyse=True, **told)
    recipe = Recipe.model_validate({"steps": plan["recipe"]})
    told["others"] = {name: Path(path) for name, path in plan["others"].items()}
    return {slug: run(recipe, model, dataset, slug, goal=goals[slug], **told) for slug in targets}


def _goal(slug: str, goals: dict[str, Any]) -> Goal | None:
    """The goal for a target; a recipe may run without one."""
    if goals["min_accuracy"] is None and goals["max_drop"] is None:
        return None
    return Goal.model_validate({"target": slug, **goals})
