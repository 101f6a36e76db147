"""Makes and measures each recipe once for a runtime, judges it for every target there, and counts what was spent."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compression_jobs.pipeline.candidate import Candidate
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.judging import judge
from compression_jobs.pipeline.passes.table import PASSES
from compression_jobs.pipeline.recipe import Recipe, describe
from compression_jobs.pipeline.targets import Target
from compression_jobs.pipeline.wording import verdict
from compression_jobs.pipeline.workshop import Workshop


@dataclass
class Trials:
    """All that one search has tried; several targets of a runtime share every candidate."""

    workshop: Workshop
    goals: Sequence[Goal]
    known: Mapping[str, Target]
    factors: Mapping[str, float]
    effort: Effort
    found: dict[str, list[Candidate]] = field(init=False)
    cut_short: bool = False
    candidates_made: int = 0
    steps_spent: int = 0

    def __post_init__(self) -> None:
        self.found = {goal.target: [] for goal in self.goals}
        self._made: dict[tuple[str, str], dict[str, Candidate]] = {}
        self._first_with: dict[tuple[str, str], str] = {}
        self._trained: set[str] = set()
        self._started = time.monotonic()

    def affords(self, recipe: Recipe, runtime: str) -> bool:
        """Whether the effort that is left pays for a recipe; one that was tried before costs nothing."""
        if (runtime, recipe.digest()) in self._made:
            return True
        if self.effort.max_seconds is not None:
            self.cut_short |= time.monotonic() - self._started > self.effort.max_seconds
        steps = sum(self._training_of(recipe).values())
        enough = self.steps_spent + steps <= self.effort.train_steps
        return enough and not self.cut_short and self.candidates_made < self.effort.candidates

    def candidate(self, recipe: Recipe, target: str) -> Candidate:
        """The candidate as it stands for one target, made and measured unless it was before."""
        runtime = self.known[target].runtime
        key = (runtime, recipe.digest())
        if key not in self._made:
            self._made[key] = self._try(recipe, runtime)
        return self._made[key][target]

    def meets(self, goal: Goal) -> bool:
        """Whether a candidate meets the goal."""
        return any(each.was_measured and each.rejected is None for each in self.found[goal.target])

    def mark_cut_short(self) -> None:
        """Write into every lineage that the clock, and not the effort, ended the search."""
        for candidates in self.found.values():
            for candidate in candidates:
                candidate.lineage["cut_short"] = True

    def _try(self, recipe: Recipe, runtime: str) -> dict[str, Candidate]:
        self.workshop.tell("candidate", f"making {describe(recipe)} for {runtime}")
        training = self._training_of(recipe)
        self.steps_spent += sum(training.values())
        self._trained.update(training)
        self.candidates_made += 1
        shared = self.workshop.candidate(recipe, runtime)
        judged = {}
        for goal in self.goals:
            if self.known[goal.target].runtime == runtime:
                judged[goal.target] = self._judged(shared, goal, runtime)
        self.workshop.finished_step()
        return judged

    def _judged(self, shared: Candidate, goal: Goal, runtime: str) -> Candidate:
        candidate = shared.for_target(goal.target)
        judge(candidate, goal, self.known[goal.target], self.factors.get(goal.target))
        twin = (
            self._first_with.setdefault((runtime, shared.sha256), shared.id) if shared.sha256 else shared.id
        )
        if twin != candidate.id:
            candidate.rejected = f"its bytes are those of {twin}"
        elif candidate.missed:
            candidate.rejected = "; ".join(candidate.missed)
        self.found[goal.target].append(candidate)
        self.workshop.tell("candidate", _measured_sentence(candidate), candidate)
        return candidate

    def _training_of(self, recipe: Recipe) -> dict[str, int]:
        """Training steps by the beginning of the recipe that they belong to; what is trained already costs nothing."""
        costs = {}
        steps = recipe.as_list()
        for position, step in enumerate(steps):
            beginning = json.dumps(steps[: position + 1], sort_keys=True)
            if PASSES[step["name"]].kind == "net" and beginning not in self._trained:
                costs[beginning] = int(step["options"].get("steps", 0))
        return costs


def _measured_sentence(candidate: Candidate) -> str:
    if candidate.accuracy is None:
        return f"{candidate.target}: rejected, {candidate.rejected}"
    return f"{candidate.target}: {verdict(candidate.accuracy)} in {candidate.bytes} bytes"
