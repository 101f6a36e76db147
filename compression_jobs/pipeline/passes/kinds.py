"""The kinds of passes, and what every pass is given beside the model."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.passes.options import Options

if TYPE_CHECKING:  # these load onnx or torch, and the table of passes is read by processes that must not
    from compression_jobs.pipeline.dataset import Dataset
    from compression_jobs.pipeline.graph.graph import Graph
    from compression_jobs.pipeline.graph.net import Net

# graph: Graph -> Graph; net: Net -> Net (training); quant: Graph or Net -> QuantGraph;
# transport: the bytes of an artifact -> the bytes sent over the air.
Kind = Literal["graph", "net", "quant", "transport"]
SAMPLE_ROWS = 8
Told = Callable[[int, int], None]


def _tell_nobody(done: int, total: int) -> None:
    del done, total


@dataclass(frozen=True)
class Material:
    """What a pass may use: rows to calibrate on, a seed of its own, and for training all the data.

    `original` is the uploaded model, the teacher; `others` are models that options name; `tell(done, total)`
    reports training steps.
    """

    calibration: npt.NDArray[np.float32]
    seed: int
    data: "Dataset | None" = None
    original: "Graph | None" = None
    tell: Told = _tell_nobody
    others: Mapping[str, Path] = field(default_factory=dict)

    @property
    def dataset(self) -> "Dataset":
        """The data to train on; raises Refused without any."""
        if self.data is None:
            raise Refused("training needs a dataset")
        return self.data

    def teacher(self) -> "Net | None":
        """The original model, to learn from; None when there is none."""
        from compression_jobs.pipeline.graph.torch_import import import_net

        return None if self.original is None else import_net(self.original, self.calibration)

    def other(self, name: str) -> "Net":
        """A model that an option names; raises Refused when nobody gave it."""
        from compression_jobs.pipeline.graph.ingest import canonicalise
        from compression_jobs.pipeline.graph.torch_import import import_net

        if name not in self.others:
            raise Refused(f"the recipe names the model {name}, which was not given")
        graph = canonicalise(self.others[name], self.calibration[:SAMPLE_ROWS])
        return import_net(graph, self.calibration)


@dataclass(frozen=True)
class Pass:
    """One technique: its kind, its options, where its function is, and a sentence for people.

    The function is named and not imported, because the web process reads this table and must not load
    onnx, onnxruntime or torch.
    """

    kind: Kind
    options: type[Options]
    function: str
    summary: str
    good_for: str = ""  # said of every candidate, where the runtime gains nothing from the technique

    def apply(self, subject: Any, options: Options, material: Material) -> Any:
        """Run the pass on what its kind takes, and return what its kind gives."""
        module, _, name = self.function.partition(":")
        function: Callable[[Any, Options, Material], Any] = getattr(importlib.import_module(module), name)
        return function(subject, options, material)
