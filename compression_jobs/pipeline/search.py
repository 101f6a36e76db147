"""Finds, for every goal, the best candidate that fits the target, or the budget that binds and the nearest one."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.atomic import write_atomic
from compression_jobs.pipeline.candidate import Candidate, Progress, Result
from compression_jobs.pipeline.dataset import check_pair, describe_dataset
from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.judging import edge_bytes, judge, missed_budgets, missed_goals, shortfall
from compression_jobs.pipeline.pareto import mark_front
from compression_jobs.pipeline.publish import passes_test, publish
from compression_jobs.pipeline.recipe import describe, parse_recipe
from compression_jobs.pipeline.sandbox import run_limited
from compression_jobs.pipeline.targets import TARGETS, Target, refuse_unemittable
from compression_jobs.pipeline.workshop import Workshop

ALIKE = 0.01  # costs within one percent are the same; accuracy decides between them
FLOAT = {"name": "canonicalise"}


def _int8(**options: str) -> list[dict[str, Any]]:
    return [FLOAT, {"name": "quantize", "options": options}]


_ALL_INT8 = [
    _int8(calibration="minmax"),
    _int8(calibration="percentile"),
    _int8(calibration="entropy"),
    _int8(calibration="mse"),
    _int8(granularity="per_tensor", calibration="minmax"),
    _int8(granularity="per_tensor", calibration="mse"),
]

# Runtime -> cheap recipes, tried in this order. Runtimes that run int8 only have no float one.
LADDERS: dict[str, list[list[dict[str, Any]]]] = {
    "onnxruntime": [[FLOAT], *_ALL_INT8],
    "litert": _ALL_INT8,
    "tflite-micro": _ALL_INT8,
}
# A ready .tflite is only carried over to the runtime.
READY: list[list[dict[str, Any]]] = [[{"name": "keep"}]]

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
) -> dict[str, Result]:
    """One result a target; raises Refused for input that cannot work, Cancelled when asked to stop.

    `factors` correct latency estimates by target, `targets` adds hardware classes to the presets.
    """
    known = TARGETS | (targets or {})
    _refuse_goals(goals, known)
    workshop = Workshop(Path(model), Path(dataset), Path(out), seed, progress, cancelled)
    runtimes = sorted({known[goal.target].runtime for goal in goals})
    workshop.steps_total = sum(len(_ladder(workshop, runtime)) for runtime in runtimes) + len(goals) + 1
    facts = check_input(workshop)
    made = {
        runtime: _climb(
            workshop, runtime, [g for g in goals if known[g.target].runtime == runtime], known, factors or {}
        )
        for runtime in runtimes
    }
    results = {}
    for goal in goals:
        target = known[goal.target]
        candidates = made[target.runtime][goal.target]
        results[goal.target] = _decide(workshop, goal, target, candidates, edge_bytes(facts))
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
    refuse_unemittable(slugs, known)


def _ladder(workshop: Workshop, runtime: str) -> list[list[dict[str, Any]]]:
    return READY if workshop.is_ready else LADDERS[runtime]


def _climb(
    workshop: Workshop,
    runtime: str,
    goals: list[Goal],
    known: Mapping[str, Target],
    factors: Mapping[str, float],
) -> dict[str, list[Candidate]]:
    """Make and measure every recipe of a runtime once, and judge each for all its targets."""
    found: dict[str, list[Candidate]] = {goal.target: [] for goal in goals}
    seen: dict[str, str] = {}
    for steps in _ladder(workshop, runtime):
        recipe = parse_recipe(steps)
        workshop.tell("candidate", f"making {describe(recipe)} for {runtime}")
        shared = workshop.candidate(recipe, runtime)
        twin = seen.setdefault(shared.sha256, shared.id) if shared.sha256 else shared.id
        for goal in goals:
            candidate = shared.for_target(goal.target)
            judge(candidate, goal, known[goal.target], factors.get(goal.target))
            if twin != candidate.id:
                candidate.rejected = f"its bytes are those of {twin}"
            elif candidate.missed:
                candidate.rejected = "; ".join(candidate.missed)
            found[goal.target].append(candidate)
            workshop.tell("candidate", _measured_sentence(candidate), candidate)
        workshop.finished_step()
    return found


def _measured_sentence(candidate: Candidate) -> str:
    if candidate.accuracy is None:
        return f"{candidate.target}: rejected, {candidate.rejected}"
    return f"{candidate.target}: {candidate.accuracy['value']:.1%} accurate in {candidate.bytes} bytes"


def _decide(
    workshop: Workshop, goal: Goal, target: Target, candidates: list[Candidate], edges: int
) -> Result:
    mark_front(candidates)
    winner = _best([each for each in candidates if each.was_measured and each.rejected is None], goal)
    if winner is None:
        return _unmet(goal, target, candidates, edges)
    workshop.tell("test", f"{target.slug}: measuring {winner.id} on the test rows")
    for candidate in candidates:
        if candidate is not winner and candidate.rejected is None:
            candidate.rejected = _why_second(candidate, winner, goal)
    if not passes_test(workshop, winner, goal, target):
        return Result(
            target.slug,
            met=False,
            shown=False,
            winner=None,
            candidates=candidates,
            sentence=f"{target.slug}: nothing is published. {winner.id} met the goal on the validation rows, but {winner.rejected}.",
            binding=missed_goals(winner, goal, winner.test_accuracy)[0][0],
        )
    publish(workshop, winner, target)
    workshop.finished_step()
    workshop.tell("publish", f"{target.slug}: published {winner.id}", winner)
    return Result(target.slug, True, winner.shown, winner, candidates, _met_sentence(goal, winner))


def _best(candidates: list[Candidate], goal: Goal) -> Candidate | None:
    """The cheapest in the goal's objective; among those within one percent of it, the most accurate."""
    if not candidates:
        return None
    least = min(_cost(each, goal) for each in candidates)
    alike = [each for each in candidates if _cost(each, goal) <= least + abs(least) * ALIKE]
    return min(alike, key=lambda each: (-_accuracy(each), each.bytes, each.id))


def _why_second(candidate: Candidate, winner: Candidate, goal: Goal) -> str:
    least = _cost(winner, goal)
    if _cost(candidate, goal) > least + abs(least) * ALIKE:
        return f"{winner.id} is better in {goal.objective}"
    if _accuracy(candidate) < _accuracy(winner):
        return f"{winner.id} is as good in {goal.objective} and more accurate"
    return f"{winner.id} is as good in {goal.objective} and as accurate; one of them had to be taken"


def _cost(candidate: Candidate, goal: Goal) -> float:
    costs = {
        "bytes": candidate.bytes,
        "ram": candidate.peak_ram_bytes or 0,
        "latency": candidate.estimated_latency_us or 0,
        "accuracy": 1 - _accuracy(candidate),
    }
    return float(costs[goal.objective])


def _accuracy(candidate: Candidate) -> float:
    assert candidate.accuracy is not None
    return float(candidate.accuracy["value"])


def _met_sentence(goal: Goal, winner: Candidate) -> str:
    assert winner.test_accuracy is not None
    test = winner.test_accuracy
    certainty = "" if winner.shown else "; the intervals are too wide to show it"
    return (
        f"{goal.target}: {winner.id} has {winner.bytes} bytes and is {test['value']:.1%} accurate on the test rows "
        f"({test['low']:.1%} to {test['high']:.1%}, n = {test['n']}), "
        f"{100 * test['drop']['value']:.2f} points below the original{certainty}."
    )


def _unmet(goal: Goal, target: Target, candidates: list[Candidate], edges: int) -> Result:
    measured = [each for each in candidates if each.was_measured]
    if not measured:
        reasons = list(dict.fromkeys(each.rejected or "" for each in candidates))
        # Nothing could be made at all: that is the input's fault, and no verdict on the goal.
        raise Refused("; ".join(reasons), problems=reasons)
    nearest = min(
        measured, key=lambda each: (shortfall(each, goal, target), -_accuracy(each), each.bytes, each.id)
    )
    missed = missed_budgets(nearest, target) + missed_goals(nearest, goal)
    verdict = (
        f"this is impossible: input and output alone take {edges} bytes of RAM"
        if edges > target.ram_bytes
        else "no candidate meets the goal"
    )
    sentence = (
        f"{target.slug}: {verdict}. {missed[0][0]} binds; "
        f"the nearest is {nearest.id}: {'; '.join(text for _, text in missed)}."
    )
    return Result(target.slug, False, False, None, candidates, sentence, missed[0][0])
