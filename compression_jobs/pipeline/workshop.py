"""One job's workbench: makes candidates, measures them once each, and remembers what is finished.

Everything lies in the output folder under its content, so that a job that was cut off goes on where it stopped:
`candidates/<runtime>/<recipe>/` holds an artifact and, written last, its facts; `measured/` holds measurements.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compression_jobs.pipeline import transport
from compression_jobs.pipeline.atomic import write_atomic
from compression_jobs.pipeline.candidate import Candidate, Progress
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.errors import Cancelled, PipelineError
from compression_jobs.pipeline.graph.facts_tflite import is_tflite
from compression_jobs.pipeline.making import make
from compression_jobs.pipeline.measure import Gauge, Measurement
from compression_jobs.pipeline.recipe import Recipe, describe
from compression_jobs.pipeline.sandbox import Limits, run_limited
from compression_jobs.pipeline.scoring import Figure, Judge, refuse_logits
from compression_jobs.pipeline.stages import STEPS_FILE, file_sha256

MAKING_LIMITS = Limits(seconds=600)
TRAINING_LIMITS = Limits(seconds=4 * 3600, memory_bytes=8 << 30)
RECORDED_PACKAGES = ("numpy", "onnx", "onnxruntime")
TRAINING_PACKAGES = (*RECORDED_PACKAGES, "torch")
ONE_CLASS = "all validation rows are of class {}: their accuracy says nothing about the other classes"
LEAKED = "these rows may have been trained on: the dataset has no split"

Tell = Callable[[Progress], None]


@dataclass
class Workshop:
    """A model and a dataset, a folder to work in, and whom to tell."""

    model: Path
    dataset: Path
    out: Path
    seed: int = 0
    progress: Tell | None = None
    cancelled: Callable[[], bool] | None = None
    steps_total: int = 1
    others: Mapping[str, Path] = field(default_factory=dict)
    steps_done: int = field(default=0, init=False)

    @cached_property
    def data(self) -> Dataset:
        """The dataset, checked."""
        return Dataset.load(self.dataset)

    @cached_property
    def model_sha256(self) -> str:
        """The digest of the uploaded model."""
        return file_sha256(self.model)

    @cached_property
    def is_ready(self) -> bool:
        """Whether the model is a ready `.tflite`, which is deployed and not compressed."""
        return self.model.is_file() and is_tflite(self.model)

    @cached_property
    def gauge(self) -> Gauge:
        """Measures on this dataset."""
        return Gauge(self.dataset, self.data.sha256, self.out / "measured", self.cancelled)

    def judge(self, split: str) -> Judge:
        """Scores outputs for the rows of a split."""
        return Judge(self.data.task, *self.data.rows(split))

    def say(self, message: str) -> None:
        """Report how the candidate in hand comes along."""
        if self.progress is not None:
            self.progress(Progress("candidate", self.steps_done, self.steps_total, message))

    def tell(self, step: str, message: str, candidate: Candidate | None = None) -> None:
        """Report progress, and stop here when somebody asked to."""
        if self.progress is not None:
            target = candidate.target if candidate else None
            shown = candidate.as_dict() if candidate else None
            self.progress(Progress(step, self.steps_done, self.steps_total, message, target, shown))
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("the job was cancelled")

    def finished_step(self) -> None:
        """Count one more step as done."""
        self.steps_done = min(self.steps_done + 1, self.steps_total)

    def reference(self, split: str) -> Measurement:
        """The original model in onnxruntime, a ready .tflite in LiteRT, row by row."""
        runtime = "litert" if self.is_ready else "onnxruntime"
        measurement = self.gauge.measure(self.model, self.model_sha256, runtime, split)
        if self.data.task == "classification":
            refuse_logits(measurement.outputs)
        return measurement

    def candidate(self, recipe: Recipe, runtime: str) -> Candidate:
        """Make and measure; one that cannot be made or measured is rejected with the reason."""
        candidate = Candidate(recipe.label(), "", recipe.as_list())
        try:
            facts = self._made(recipe, runtime)
            self._measured(candidate, facts, recipe, runtime)
        except Cancelled:
            raise
        except PipelineError as error:
            candidate.rejected = str(error)
        return candidate

    def folder_of(self, recipe: Recipe, runtime: str) -> Path:
        """Where a candidate's files are."""
        return self.out / "candidates" / runtime / recipe.label()

    def _made(self, recipe: Recipe, runtime: str) -> dict[str, Any]:
        folder = self.folder_of(recipe, runtime)
        facts_file, identity = folder / "facts.json", self._identity(recipe)
        if facts_file.exists():
            facts: dict[str, Any] = json.loads(facts_file.read_text())
            if facts["identity"] == identity and _are_whole(folder, facts):
                return facts
        folder.mkdir(parents=True, exist_ok=True)
        facts = run_limited(
            make,
            self.model,
            self.dataset,
            [step.model_dump() for step in recipe.steps],
            runtime,
            folder,
            self.seed,
            self.out / "stages",
            {name: str(path) for name, path in self.others.items()},
            limits=TRAINING_LIMITS if recipe.trains else MAKING_LIMITS,
            cancelled=Follower(self, folder / STEPS_FILE, describe(recipe)),
        )
        facts["identity"] = identity
        write_atomic(facts_file, json.dumps(facts))
        return facts

    def _identity(self, recipe: Recipe) -> dict[str, Any]:
        """What decides the bytes: a finished candidate counts only while all of this is the same."""
        packages = TRAINING_PACKAGES if recipe.trains else RECORDED_PACKAGES
        return {
            "model_sha256": self.model_sha256,
            "dataset_sha256": self.data.sha256,
            "recipe": recipe.as_list(),
            "seed": self.seed,
            "others": {name: file_sha256(path) for name, path in self.others.items()},
            "packages": {name: version(name) for name in packages},
        }

    def _measured(self, candidate: Candidate, facts: dict[str, Any], recipe: Recipe, runtime: str) -> None:
        for name in ("format", "bytes", "sha256", "transport", "parameters", "macs"):
            setattr(candidate, name, facts[name])
        candidate.path = str(self.folder_of(recipe, runtime) / facts["file"])
        candidate.transport_bytes = candidate.transport["bytes"]
        split = "validation"
        measurement = self.gauge.measure(Path(candidate.path), candidate.sha256, runtime, split)
        judge, reference = self.judge(split), self.reference(split)
        candidate.accuracy = shown_figure(judge.accuracy(measurement.outputs), judge, split)
        candidate.reference_accuracy = shown_figure(judge.accuracy(reference.outputs), judge, split)
        candidate.drop = shown_figure(judge.drop(reference.outputs, measurement.outputs), judge, split)
        candidate.agreement = judge.agreement(reference.outputs, measurement.outputs)
        candidate.peak_ram_bytes = measurement.peak_ram_bytes
        candidate.host_latency_us = measurement.host_latency_us
        candidate.lineage = {
            "parent_sha256": self.model_sha256,
            "dataset_sha256": self.data.sha256,
            "seed": self.seed,
            "steps": facts["steps"],
            "packages": facts["identity"]["packages"],
            "runtime": runtime,
            "output": facts["output"],
            "normalisation": facts.get("normalisation"),
        }
        if not self.data.has_split:
            candidate.notes.append(LEAKED)
        if judge.one_class is not None:
            candidate.notes.append(ONE_CLASS.format(judge.one_class))
        candidate.notes += [*facts["notes"], transport.sentence(facts["transport"])]


@dataclass
class Follower:
    """Asked four times a second while a candidate is made: tells its training steps, and whether to stop."""

    workshop: Workshop
    path: Path
    what: str
    seen: str = ""

    def __call__(self) -> bool:
        """Whether somebody wants the job to stop."""
        told = self.path.read_text() if self.path.exists() else ""
        if told and told != self.seen:
            self.seen = told
            now = json.loads(told)
            self.workshop.say(f"{self.what}: {now['pass']}, step {now['done']} of {now['total']}")
        return self.workshop.cancelled is not None and self.workshop.cancelled()


def shown_figure(figure: Figure, judge: Judge, split: str) -> dict[str, Any]:
    """A figure with its metric, the number of rows and the split it was measured on."""
    return {**figure.as_dict(), "metric": judge.metric, "n": judge.n, "split": split}


def _are_whole(folder: Path, facts: dict[str, Any]) -> bool:
    files = ((facts["file"], facts["sha256"]), (transport.FILE, facts["transport"]["sha256"]))
    return all(_is_whole(folder / name, sha256) for name, sha256 in files)


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256
