"""Chooses the winner among measured candidates, and says why the others lost or which budget binds."""

from collections.abc import Iterable
from typing import Any

from compression_jobs.pipeline.candidate import Candidate, Result
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.judging import missed_budgets, missed_goals, shortfall
from compression_jobs.pipeline.pareto import mark_front
from compression_jobs.pipeline.publish import keep_nearest, passes_test, publish, withdraw
from compression_jobs.pipeline.targets import Target
from compression_jobs.pipeline.wording import loss, span, verdict
from compression_jobs.pipeline.workshop import Workshop

ALIKE = 0.01  # costs within one percent are the same; accuracy decides between them


def decide(workshop: Workshop, goal: Goal, target: Target, candidates: list[Candidate], edges: int) -> Result:
    """Publish the best candidate that meets the goal; `edges` are the bytes that input and output need at least.

    When none does, the nearest one is kept apart.
    """
    withdraw(workshop, target)
    mark_front(candidates)
    winner = best_of([each for each in candidates if each.was_measured and each.rejected is None], goal)
    result = (
        _tested(workshop, goal, target, candidates, winner)
        if winner
        else _unmet(workshop, goal, target, candidates, edges)
    )
    workshop.finished_step()
    workshop.tell("publish", result.sentence, result.winner)
    return result


def _tested(
    workshop: Workshop, goal: Goal, target: Target, candidates: list[Candidate], winner: Candidate
) -> Result:
    """The winner meets the test rows, once, and is published when it holds there."""
    workshop.tell("test", f"{target.slug}: measuring {winner.id} on the test rows")
    for candidate in candidates:
        if candidate is not winner and candidate.rejected is None:
            candidate.rejected = _why_second(candidate, winner, goal)
    if not passes_test(workshop, winner, goal, target):
        keep_nearest(workshop, winner, target)
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
    return Result(target.slug, True, winner.shown, winner, candidates, _met_sentence(goal, winner))


def refuse_unmade(results: Iterable[Result]) -> None:
    """Raise Refused when nothing could be made for any target: the input's fault, and no verdict on a goal."""
    candidates = [candidate for result in results for candidate in result.candidates]
    if not any(candidate.was_measured for candidate in candidates):
        reasons = reasons_of(candidates)
        raise Refused("; ".join(reasons), problems=reasons)


def reasons_of(candidates: Iterable[Candidate]) -> list[str]:
    """Why candidates were rejected, each reason once."""
    return list(dict.fromkeys(each.rejected for each in candidates if each.rejected))


def best_of(candidates: list[Candidate], goal: Goal) -> Candidate | None:
    """The cheapest in the goal's objective; among those within one percent of it, the most accurate."""
    if not candidates:
        return None
    least = min(_cost(each, goal) for each in candidates)
    apart = 0.0 if goal.objective == "accuracy" else ALIKE
    alike = [each for each in candidates if _cost(each, goal) <= least + abs(least) * apart]
    return min(alike, key=lambda each: (-accuracy_of(each), each.bytes, each.id))


def _why_second(candidate: Candidate, winner: Candidate, goal: Goal) -> str:
    if goal.objective == "accuracy":
        better = accuracy_of(candidate) < accuracy_of(winner)
        return f"{winner.id} is more accurate" if better else f"{winner.id} is as accurate, and not larger"
    least = _cost(winner, goal)
    if _cost(candidate, goal) > least + abs(least) * ALIKE:
        return f"{winner.id} is better in {goal.objective}"
    if accuracy_of(candidate) < accuracy_of(winner):
        return f"{winner.id} is as good in {goal.objective} and more accurate"
    return f"{winner.id} is as good in {goal.objective} and as accurate; one of them had to be taken"


def _cost(candidate: Candidate, goal: Goal) -> float:
    costs = {
        "bytes": candidate.bytes,
        "ram": candidate.peak_ram_bytes or 0,
        "latency": candidate.estimated_latency_us or 0,
        "accuracy": 1 - accuracy_of(candidate),
    }
    return float(costs[goal.objective])


def accuracy_of(candidate: Candidate) -> float:
    """The point estimate of a measured candidate on the validation rows."""
    assert candidate.accuracy is not None
    return float(candidate.accuracy["value"])


def _met_sentence(goal: Goal, winner: Candidate) -> str:
    assert winner.test_accuracy is not None
    test = winner.test_accuracy
    certainty = "" if winner.shown else "; the intervals are too wide to show it"
    return (
        f"{goal.target}: {winner.id} has {winner.bytes} bytes and is {verdict(test)} on the test rows "
        f"({span(test)}), {_against_original(test)}{certainty}."
    )


def _against_original(test: dict[str, Any]) -> str:
    drop = test["drop"]["value"]
    return f"{loss(test, abs(drop))} {'below' if drop >= 0 else 'above'} the original"


def _unmet(workshop: Workshop, goal: Goal, target: Target, candidates: list[Candidate], edges: int) -> Result:
    measured = [each for each in candidates if each.was_measured]
    if not measured:
        sentence = f"{target.slug}: nothing could be made. {'; '.join(reasons_of(candidates))}"
        return Result(target.slug, False, False, None, candidates, sentence, "model")
    nearest = min(
        measured, key=lambda each: (shortfall(each, goal, target), -accuracy_of(each), each.bytes, each.id)
    )
    missed = missed_budgets(nearest, target) + missed_goals(nearest, goal)
    keep_nearest(workshop, nearest, target)
    verdict = (
        f"this is impossible: input and output alone take {edges} bytes of RAM"
        if edges > target.ram_bytes
        else "no candidate meets the goal"
    )
    sentence = (
        f"{target.slug}: {verdict}. {missed[0][0]} binds; "
        f"the nearest is {nearest.id}: {'; '.join(text for _, text in missed)}.{_of_original(nearest, goal)}"
    )
    return Result(target.slug, False, False, None, candidates, sentence, missed[0][0])


def _of_original(candidate: Candidate, goal: Goal) -> str:
    """Whether the model that was given asks for too much itself."""
    original = candidate.reference_accuracy
    if original is None or goal.min_accuracy is None or original["value"] >= goal.min_accuracy:
        return ""
    return f" The original itself is {verdict(original)}."
