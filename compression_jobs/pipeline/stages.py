"""Takes a model through the passes of a recipe, and keeps what training made for recipes that begin alike."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.atomic import write_atomic
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.feature_scales import Normalisation, on_even_features
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quantgraph import QuantGraph
from compression_jobs.pipeline.passes.canonicalise import canonicalise
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import NoOptions
from compression_jobs.pipeline.passes.table import PASSES
from compression_jobs.pipeline.recipe import Recipe

STEPS_FILE = "steps"
TRAINING_PACKAGES = ("numpy", "onnx", "onnxruntime", "torch")


def step_seed(seed: int, recipe: Recipe, position: int) -> int:
    """The seed of one step: from the job's seed and the path of steps up to it."""
    path = json.dumps([seed, recipe.as_list()[: position + 1]], sort_keys=True)
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "little")


@dataclass
class Told:
    """Writes down how many training steps are done, for the parent to read."""

    path: Path
    label: str = ""

    def __call__(self, done: int, total: int) -> None:
        """Say how far the step in hand has come."""
        write_atomic(self.path, json.dumps({"pass": self.label, "done": done, "total": total}))


def file_sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Stages:
    """Trained graphs by what decided their bytes."""

    folder: Path
    origin: dict[str, Any]

    @classmethod
    def of(
        cls, folder: Path | None, model: Path, data: Dataset, seed: int, others: Mapping[str, Path]
    ) -> "Stages | None":
        """The stages of one model, dataset and seed; None without a folder."""
        if folder is None:
            return None
        models = {name: file_sha256(path) for name, path in {"": model, **others}.items()}
        packages = {name: version(name) for name in TRAINING_PACKAGES}
        return cls(folder, {"models": models, "dataset": data.sha256, "seed": seed, "packages": packages})

    def load(self, steps: list[dict[str, Any]]) -> Graph | None:
        """What these steps made before, if they did."""
        path = self._path(steps)
        # The ranges are written last: whoever finds them finds the graph, too.
        if not path.with_suffix(".json").exists():
            return None
        graph = Graph.load(path)
        kept = json.loads(path.with_suffix(".json").read_text())
        graph.ranges = {name: (low, high) for name, (low, high) in kept["ranges"].items()}
        graph.notes = kept["notes"]
        return graph

    def save(self, steps: list[dict[str, Any]], graph: Graph) -> None:
        """Keep what these steps made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(steps)
        graph.save(path)
        write_atomic(path.with_suffix(".json"), json.dumps({"ranges": graph.ranges, "notes": graph.notes}))

    def _path(self, steps: list[dict[str, Any]]) -> Path:
        text = json.dumps([self.origin, steps], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.onnx"


@dataclass
class Bench:
    """One recipe at work; `graph` is the last float form of the model."""

    recipe: Recipe
    seed: int
    data: Dataset
    graph: Graph
    told: Told
    stages: Stages | None = None
    others: Mapping[str, Path] = field(default_factory=dict)
    original: Graph = field(init=False)
    normalisation: Normalisation | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # Students of one's own read the features as they come.
        if (self.recipe.trains or self.recipe.quantizes) and not self.recipe.models_named:
            self.graph, self.data, self.normalisation = on_even_features(self.graph, self.data)
        self.calibration, _ = self.data.rows("calibration")
        self.original = self.graph
        if self.stages is not None and self.normalisation is not None:
            origin = {**self.stages.origin, "normalisation": self.normalisation.as_dict()}
            self.stages = replace(self.stages, origin=origin)

    def run(self) -> Graph | QuantGraph:
        """The model after all passes."""
        first = self._resume()
        subject: Any = self.graph
        for position, step in list(enumerate(self.recipe.shaping))[first:]:
            if self._trains(position):
                subject = self._trained(position)
            else:
                subject = PASSES[step.name].apply(subject, step.checked_options(), self._material(position))
            if isinstance(subject, Graph):
                self.graph = subject
        return subject  # type: ignore[no-any-return]

    def _resume(self) -> int:
        """Load the longest trained beginning that is known; the position of the first step still to do."""
        for position in range(len(self.recipe.steps) - 1, -1, -1):
            if self.stages is None or not self._trains(position):
                continue
            found = self.stages.load(self.recipe.as_list()[: position + 1])
            if found is not None:
                self.graph = found
                return position + 1
        return 0

    def _trains(self, position: int) -> bool:
        return PASSES[self.recipe.steps[position].name].kind == "net"

    def _material(self, position: int) -> Material:
        seed = step_seed(self.seed, self.recipe, position)
        self.told.label = self.recipe.steps[position].name
        return Material(self.calibration, seed, self.data, self.original, self.told, self.others)

    def _trained(self, position: int) -> Graph:
        """The graph after one pass that trains; exported each time, so that going on later gives the same bytes."""
        # torch takes a second to load; recipes that do not train go without it.
        from compression_jobs.pipeline.graph.torch_export import export_net
        from compression_jobs.pipeline.graph.torch_import import import_net

        step = self.recipe.steps[position]
        net = import_net(self.graph, self.calibration)
        net = PASSES[step.name].apply(net, step.checked_options(), self._material(position))
        exported = export_net(net, self.graph, self.calibration)
        graph = canonicalise(exported, NoOptions(), Material(self.calibration, self.seed))
        if self.stages is not None:
            self.stages.save(self.recipe.as_list()[: position + 1], graph)
        return graph
