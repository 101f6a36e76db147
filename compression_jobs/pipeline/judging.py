"""Judges a measured candidate for one target and goal: does it fit, does it keep what must survive."""

from math import prod
from typing import Any

from compression_jobs.pipeline.candidate import Candidate
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.intervals import round_rows, rows_to_show
from compression_jobs.pipeline.latency import estimate_us, factor_note
from compression_jobs.pipeline.targets import Target
from compression_jobs.pipeline.wording import loss, score

MIB = 1 << 20
SMALL_MODEL_BYTES = 1 * MIB
# A rounding error must not decide whether 0.90 reaches 0.90.
HAIR = 1e-9


def judge(candidate: Candidate, goal: Goal | None, target: Target, factor: float | None = None) -> None:
    """Fill in what depends on the target: estimate, fits, missed budgets and goals, notes."""
    if not candidate.was_measured:
        return
    quantized = candidate.lineage["output"] is not None
    candidate.estimated_latency_us = estimate_us(target, candidate.macs, quantized, factor or 1.0)
    budgets = missed_budgets(candidate, target)
    candidate.fits = not budgets
    candidate.missed = [sentence for _, sentence in budgets]
    candidate.notes += [factor_note(target, factor), *_runtime_notes(candidate, target, quantized)]
    if goal is not None:
        candidate.missed += [sentence for _, sentence in missed_goals(candidate, goal)]
        candidate.shown = candidate.fits and is_shown(candidate, goal)
        candidate.notes += _resolution_notes(candidate, goal)


def missed_budgets(candidate: Candidate, target: Target) -> list[tuple[str, str]]:
    """Each budget of the target that the candidate exceeds: its name, and the sentence with by how much."""
    limits = [
        ("flash", candidate.bytes, target.flash_bytes, _size),
        ("ram", candidate.peak_ram_bytes or 0, target.ram_bytes, _size),
        ("latency", candidate.estimated_latency_us or 0, target.latency_us, _time),
    ]
    return [
        (
            name,
            f"{name}: {show(needed)} needed, {show(limit)} free on {target.slug}, {show(needed - limit)} too much",
        )
        for name, needed, limit, show in limits
        if limit is not None and needed > limit
    ]


def missed_goals(
    candidate: Candidate, goal: Goal, figures: dict[str, Any] | None = None
) -> list[tuple[str, str]]:
    """What must survive and does not, judged on the point estimate."""
    accuracy, drop = _figures(candidate, figures)
    missed = []
    if goal.min_accuracy is not None and accuracy["value"] < goal.min_accuracy - HAIR:
        missed.append(
            (
                "min_accuracy",
                f"accuracy: {score(accuracy)} of n = {accuracy['n']}, {score(accuracy, goal.min_accuracy)} asked",
            )
        )
    if goal.max_drop is not None and drop["value"] > goal.max_drop + HAIR:
        missed.append(
            (
                "max_drop",
                f"drop: {loss(accuracy, drop['value'])}, {loss(accuracy, goal.max_drop, None)} allowed (n = {accuracy['n']})",
            )
        )
    return missed


def is_shown(candidate: Candidate, goal: Goal, figures: dict[str, Any] | None = None) -> bool:
    """Whether the goal is met by the ends of the 95 % intervals, too."""
    accuracy, drop = _figures(candidate, figures)
    if goal.min_accuracy is not None and accuracy["low"] < goal.min_accuracy - HAIR:
        return False
    return goal.max_drop is None or drop["high"] <= goal.max_drop + HAIR


def edge_bytes(facts: dict[str, Any]) -> int:
    """The least RAM that any form of a model needs: its inputs and outputs with one byte a number."""
    return sum(prod(abs(size) for size in port["shape"]) for port in [*facts["inputs"], *facts["outputs"]])


def shortfall(candidate: Candidate, goal: Goal, target: Target) -> float:
    """How far a candidate is from fitting and meeting the goal; 0 is there, 1 is twice a budget."""
    flash = candidate.bytes / target.flash_bytes - 1
    ram = (candidate.peak_ram_bytes or 0) / target.ram_bytes - 1
    slow = (candidate.estimated_latency_us or 0) / target.latency_us - 1 if target.latency_us else 0.0
    accuracy, drop = _figures(candidate, None)
    inaccurate = goal.min_accuracy - accuracy["value"] if goal.min_accuracy is not None else 0.0
    dropped = drop["value"] - goal.max_drop if goal.max_drop is not None else 0.0
    return sum(max(part, 0.0) for part in (flash, ram, slow, inaccurate, dropped))


def _figures(candidate: Candidate, figures: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    if figures is not None:
        return figures, figures["drop"]
    assert candidate.accuracy is not None
    assert candidate.drop is not None
    return candidate.accuracy, candidate.drop


def _runtime_notes(candidate: Candidate, target: Target, quantized: bool) -> list[str]:
    if target.runtime == "onnxruntime" and quantized and candidate.bytes < SMALL_MODEL_BYTES:
        return [
            "int8 saves no RAM in onnxruntime on a model this small; it saves bytes on disk and over the air"
        ]
    if target.runtime == "tflite-micro":
        return [
            "RAM is what TensorFlow Lite Micro recorded on a 64-bit host; on the chip its own records are smaller"
        ]
    return []


def _resolution_notes(candidate: Candidate, goal: Goal) -> list[str]:
    """Say when the rows are too few to show the drop that the goal asks about."""
    if goal.max_drop is None:
        return []
    accuracy, drop = _figures(candidate, None)
    needed = rows_to_show(goal.max_drop, drop["value"], drop["high"], accuracy["n"])
    if needed is None:
        return []
    asked = loss(accuracy, goal.max_drop, None)
    return [f"n = {accuracy['n']} cannot show {asked}; about {round_rows(needed)} rows would"]


def _size(count: float) -> str:
    if count >= 10 * MIB:
        return f"{count / MIB:.0f} MiB"
    return f"{count / 1024:.1f} KiB" if count >= 1024 else f"{count:.0f} bytes"


def _time(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f} ms"
