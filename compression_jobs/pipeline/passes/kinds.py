"""The kinds of passes, and what every pass is given beside the model."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.passes.options import Options

# graph: Graph -> Graph; net: Net -> Net (training); quant: Graph or Net -> QuantGraph;
# transport: the bytes of an artifact -> the bytes sent over the air.
Kind = Literal["graph", "net", "quant", "transport"]


@dataclass(frozen=True)
class Material:
    """What a pass may use: rows to calibrate on, and a seed of its own."""

    calibration: npt.NDArray[np.float32]
    seed: int


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

    def apply(self, subject: Any, options: Options, material: Material) -> Any:
        """Run the pass on what its kind takes, and return what its kind gives."""
        module, _, name = self.function.partition(":")
        function: Callable[[Any, Options, Material], Any] = getattr(importlib.import_module(module), name)
        return function(subject, options, material)
