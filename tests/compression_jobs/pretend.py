"""Stand-ins for the pipeline, run in a job's real child process: quick, and slow or broken where tests need it."""

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.candidate import Candidate, Progress, Result
from compression_jobs.pipeline.errors import Refused

WAIT_SECONDS = 60


def find(plan: dict[str, Any], model: Path, dataset: Path, out: Path, told: Path) -> dict[str, Any]:
    """Two candidates a target; the second is published."""
    return {slug: _result(slug, out, told, met=True).as_dict() for slug in _slugs(plan)}


def miss(plan: dict[str, Any], model: Path, dataset: Path, out: Path, told: Path) -> dict[str, Any]:
    """Nothing fits the first target; the others are met."""
    first = _slugs(plan)[0]
    return {slug: _result(slug, out, told, met=slug != first).as_dict() for slug in _slugs(plan)}


def refuse(plan: dict[str, Any], model: Path, dataset: Path, out: Path, told: Path) -> dict[str, Any]:
    """The model turns out to be unusable."""
    raise Refused("groups = 3", node="Conv_12", remedy="use onnxruntime", problems=["Conv_12: groups = 3"])


def crash(plan: dict[str, Any], model: Path, dataset: Path, out: Path, told: Path) -> dict[str, Any]:
    """A hostile model takes the child down."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def wait(plan: dict[str, Any], model: Path, dataset: Path, out: Path, told: Path) -> dict[str, Any]:
    """Say that it is at work, then wait until the file `go` stands in the folder of all jobs."""
    _tell(told, Progress("measure", 1, 2, f"child {os.getpid()}"))
    deadline = time.monotonic() + WAIT_SECONDS
    while not (told.parent.parent / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return find(plan, model, dataset, out, told)


def _slugs(plan: dict[str, Any]) -> list[str]:
    return [target["slug"] for target in plan["targets"]]


def _result(slug: str, out: Path, told: Path, *, met: bool) -> Result:
    candidates = [_candidate(slug, "float", 400), _candidate(slug, "int8", 200)]
    for done, candidate in enumerate(candidates, 1):
        _tell(told, Progress("measure", done, 2, candidate.id, slug, candidate.as_dict()))
    candidates[0].rejected = "int8 is smaller"
    candidates[1].on_front = True
    if not met:
        return Result(
            slug, False, False, None, candidates, f"{slug}: flash binds; the nearest is int8", "flash"
        )
    _write_files(out / slug)
    return Result(slug, True, True, candidates[1], candidates, f"{slug}: met by int8")


def _candidate(slug: str, name: str, size: int) -> Candidate:
    accuracy = {"value": 0.95, "low": 0.91, "high": 0.97, "n": 200}
    return Candidate(
        id=name,
        target=slug,
        recipe=[{"name": name, "options": {}}],
        path="/somewhere/model.onnx",
        format="onnx",
        bytes=size,
        transport_bytes=size,
        transport={"coding": "none", "bytes": size},
        sha256=name.ljust(64, "0"),
        accuracy=accuracy,
        test_accuracy=accuracy,
        fits=True,
        lineage={"seed": 0},
    )


def _write_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"int8 weights" * 10)
    (folder / "transport.bin").write_bytes(b"int8 weights" * 10)
    (folder / "selftest.bin").write_bytes(b"self-test")
    (folder / "signature.json").write_text(json.dumps({"task": "classification", "classes": ["a", "b"]}))


def _tell(told: Path, progress: Progress) -> None:
    with told.open("a") as lines:
        lines.write(json.dumps(asdict(progress)) + "\n")
