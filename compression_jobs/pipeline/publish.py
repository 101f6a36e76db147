"""Publishes the winner of a target: test rows once, then artifact, self-test, signature and lineage as files."""

import json
import shutil
from pathlib import Path
from typing import Any

from compression_jobs.pipeline import selftest, transport
from compression_jobs.pipeline.atomic import write_atomic
from compression_jobs.pipeline.candidate import Candidate
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.judging import is_shown, missed_goals
from compression_jobs.pipeline.sandbox import run_limited
from compression_jobs.pipeline.targets import Target
from compression_jobs.pipeline.workshop import Workshop, shown_figure


def passes_test(workshop: Workshop, winner: Candidate, goal: Goal | None, target: Target) -> bool:
    """Measure the winner on the test rows, which nothing has looked at before; False when the goal fails there."""
    measurement = workshop.gauge.measure(Path(winner.path), winner.sha256, target.runtime, "test")
    reference, judge = workshop.reference("test"), workshop.judge("test")
    winner.test_accuracy = {
        **shown_figure(judge.accuracy(measurement.outputs), judge, "test"),
        "drop": shown_figure(judge.drop(reference.outputs, measurement.outputs), judge, "test"),
        "reference": shown_figure(judge.accuracy(reference.outputs), judge, "test"),
    }
    if goal is None:
        return True
    missed = missed_goals(winner, goal, winner.test_accuracy)
    if missed:
        winner.rejected = f"the goal fails on the test rows: {'; '.join(sentence for _, sentence in missed)}"
    winner.shown = winner.shown and is_shown(winner, goal, winner.test_accuracy)
    return not missed


def publish(workshop: Workshop, winner: Candidate, target: Target) -> Path:
    """Write `out/<target>/`: the artifact, `selftest.bin`, `signature.json`, `lineage.json`, and what goes over the air."""
    return _write(workshop, winner, target, workshop.out / target.slug)


def withdraw(workshop: Workshop, target: Target) -> None:
    """Remove what an earlier run published for a target into the same folder."""
    for folder in (workshop.out / target.slug, nearest_of(workshop.out, target.slug)):
        if folder.exists():
            shutil.rmtree(folder)


def nearest_of(out: Path, slug: str) -> Path:
    """Where the best effort for a target is kept, apart from what was published."""
    return out / "nearest" / slug


def keep_nearest(workshop: Workshop, nearest: Candidate, target: Target) -> None:
    """Write the best effort, which misses the goal, into `out/nearest/<target>/`; its lineage says what it misses."""
    nearest.lineage |= {"met": False, "missed": nearest.missed or [str(nearest.rejected)]}
    _write(workshop, nearest, target, nearest_of(workshop.out, target.slug))


def _write(workshop: Workshop, winner: Candidate, target: Target, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    artifact = folder / Path(winner.path).name
    shutil.copyfile(winner.path, artifact)
    shutil.copyfile(Path(winner.path).with_name(transport.FILE), folder / transport.FILE)
    scores = workshop.gauge.outputs_of(Path(winner.path), winner.sha256, target.runtime, "validation")
    ports = run_limited(
        selftest.write,
        Path(winner.path),
        workshop.dataset,
        scores,
        winner.lineage["output"],
        folder / "selftest.bin",
        target.runtime,
        cancelled=workshop.cancelled,
    )
    winner.lineage |= {"measurements": _measurements(winner)}
    write_atomic(folder / "signature.json", json.dumps(_signature(workshop, winner, ports, target), indent=2))
    write_atomic(folder / "lineage.json", json.dumps(winner.lineage, indent=2))
    return folder


def _signature(
    workshop: Workshop, winner: Candidate, ports: dict[str, Any], target: Target
) -> dict[str, Any]:
    data = workshop.data
    return {
        "inputs": ports["inputs"],
        "outputs": ports["outputs"],
        "task": data.task,
        "classes": _class_names(workshop, ports) if data.task == "classification" else [],
        "normalisation": winner.lineage["normalisation"],
        "runtime": target.runtime,
    }


def _class_names(workshop: Workshop, ports: dict[str, Any]) -> list[str]:
    """The dataset's names, else the numbers of all classes that the model tells apart."""
    if workshop.data.class_names:
        return list(workshop.data.class_names)
    scores = next((p for p in ports["outputs"] if p["dtype"].startswith("float")), ports["outputs"][0])
    width = scores["shape"][-1] if scores["shape"] else 1
    return [str(number) for number in range(max(width, workshop.data.classes))]


def _measurements(winner: Candidate) -> dict[str, Any]:
    names = (
        "accuracy",
        "test_accuracy",
        "drop",
        "agreement",
        "bytes",
        "transport",
        "peak_ram_bytes",
        "host_latency_us",
        "estimated_latency_us",
        "macs",
    )
    return {name: getattr(winner, name) for name in names}
