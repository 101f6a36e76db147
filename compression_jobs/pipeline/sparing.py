"""Layers left in float where int8 costs too much: mixed precision after the sensitivity analysis.

Only onnxruntime runs both kinds in one model. After Wu et al. 2020, "Integer Quantization for Deep Learning
Inference", section 5.3 (partial quantization): layers are put back in the order of what rounding each alone costs.
"""

from typing import Any

from compression_jobs.pipeline.candidate import Candidate
from compression_jobs.pipeline.deciding import accuracy_of
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.judging import missed_goals
from compression_jobs.pipeline.ladder import FLOAT
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.trials import Trials

MIXES = "onnxruntime"
COUNTS = (1, 2, 4)  # of layers put back, one try after the other


def may_spare(trials: Trials, goal: Goal) -> bool:
    """Whether int8 candidates were measured for a target that could mix them with float, and all lose too much."""
    candidates = _int8(trials, goal)
    mixes = trials.known[goal.target].runtime == MIXES and not trials.workshop.is_ready
    return mixes and bool(candidates) and all(missed_goals(each, goal) for each in candidates)


def spare(trials: Trials, goal: Goal, layers: list[dict[str, Any]]) -> None:
    """Make the best int8 candidate again with the costliest layers in float, more of them until the goal is kept."""
    costly = [layer for layer in layers if layer["quantized_drop"] > 0]
    names = [layer["name"] for layer in sorted(costly, key=lambda layer: -layer["quantized_drop"])]
    best = max(_int8(trials, goal), key=lambda each: (accuracy_of(each), -each.bytes))
    int8 = next(step for step in best.recipe if step["name"] == "quantize")
    for count in (count for count in COUNTS if count <= len(names)):
        options = {**int8["options"], "float_layers": names[:count]}
        before = [step for step in best.recipe if step["name"] not in ("canonicalise", "quantize")]
        recipe = parse_recipe([FLOAT, *before, {"name": "quantize", "options": options}])
        if not trials.affords(recipe, MIXES):
            return
        found = trials.candidate(recipe, goal.target)
        if found.was_measured and not missed_goals(found, goal):
            return


def _int8(trials: Trials, goal: Goal) -> list[Candidate]:
    measured = [each for each in trials.found[goal.target] if each.was_measured]
    return [each for each in measured if each.lineage["output"] is not None]
