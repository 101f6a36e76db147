"""Measures an artifact in the runtime that will run it, in a limited child, once for each distinct question.

A question is (SHA-256 of the bytes, runtime, SHA-256 of the dataset, split); its answer is kept in a folder.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline import beside
from compression_jobs.pipeline.atomic import write_atomic
from compression_jobs.pipeline.benches import BENCHES
from compression_jobs.pipeline.sandbox import Limits, run_limited

LIMITS = Limits(seconds=300)


@dataclass(frozen=True)
class Measurement:
    """What a model answered to the rows of a split, one row of scores each, and what that took."""

    outputs: npt.NDArray[np.float32]
    peak_ram_bytes: int
    host_latency_us: dict[str, float]


@dataclass(frozen=True)
class Gauge:
    """Measures on one dataset, with a folder of answers."""

    dataset: Path
    dataset_sha256: str
    folder: Path
    cancelled: Callable[[], bool] | None = None

    def measure(self, artifact: Path, sha256: str, runtime: str, split: str) -> Measurement:
        """The measurement of a file whose SHA-256 is known; raises SandboxError or Refused."""
        outputs = self.outputs_of(artifact, sha256, runtime, split)
        answer = outputs.with_suffix(".json")
        if not answer.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            found = run_limited(
                BENCHES[runtime].measure,
                artifact,
                self.dataset,
                split,
                outputs,
                limits=LIMITS,
                cancelled=self.cancelled,
            )
            # The answer is written last: whoever finds it finds the outputs, too.
            write_atomic(answer, json.dumps(found))
        return Measurement(np.load(outputs, allow_pickle=False), **json.loads(answer.read_text()))

    def outputs_of(self, artifact: Path, sha256: str, runtime: str, split: str) -> Path:
        """The file with the scores of a measurement."""
        identity = beside.identity(artifact, sha256)
        return self.folder / f"{identity[:32]}-{runtime}-{self.dataset_sha256[:16]}-{split}.npy"
