"""Where artifacts of each runtime are measured, and what a self-test of them allows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compression_jobs.pipeline import measure_onnxruntime, measure_plan, measure_tflite
from compression_jobs.pipeline.graph.facts_tflite import keeps_state

Array = npt.NDArray[Any]
Ports = list[dict[str, Any]]


@dataclass(frozen=True)
class Bench:
    """The functions that run one kind of artifact; all of them run inside limited children."""

    measure: Callable[[Path, Path, str, Path], dict[str, Any]]
    ports: Callable[[Path], tuple[Ports, Ports]]
    samples: Callable[[Path, Array], list[tuple[list[Array], list[Array]]]]
    tolerance_lsb: int  # of int8 results on other processors; 0 means the same bytes
    keeps_state: Callable[[Path], bool]  # whether a run leaves something to the next: rows are streams then
    knows_shapes: bool = True


BENCHES: dict[str, Bench] = {
    "onnxruntime": Bench(
        measure_onnxruntime.measure,
        measure_onnxruntime.ports,
        measure_onnxruntime.samples,
        2,
        lambda artifact: False,
    ),
    "litert": Bench(
        measure_tflite.measure_litert,
        measure_tflite.litert_ports,
        measure_tflite.litert_samples,
        2,
        keeps_state,
    ),
    "micropython": Bench(
        measure_plan.measure,
        measure_plan.ports,
        measure_plan.samples,
        0,
        measure_plan.keeps_state,
        knows_shapes=False,
    ),
    "tflite-micro": Bench(
        measure_tflite.measure_tflite_micro,
        measure_tflite.tflite_micro_ports,
        measure_tflite.tflite_micro_samples,
        2,
        keeps_state,
    ),
}
