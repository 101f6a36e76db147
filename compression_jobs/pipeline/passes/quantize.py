"""Post-training int8: affine activations, symmetric weights, ranges from calibration rows.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference"; entropy ranges: Migacz 2017, "8-bit Inference with TensorRT"; bias correction and data-free mode: Nagel 2019.
"""

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph import quant_islands
from compression_jobs.pipeline.graph.bias_correction import correct_biases
from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.quant_build import build, refuse_unquantizable
from compression_jobs.pipeline.graph.quant_calibrate import alive, calibrate, synthetic_rows
from compression_jobs.pipeline.graph.quantgraph import QuantGraph
from compression_jobs.pipeline.graph.rewrites.gates import integer_form
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import FEWEST_ROWS, QuantizeOptions


def quantize(graph: Graph, options: QuantizeOptions, material: Material) -> QuantGraph:
    """The int8 form of a float graph."""
    graph = integer_form(graph)
    refuse_unquantizable(graph)
    rows = _rows(graph, options, material)
    if options.bias_correction:
        left = quant_islands.behind(graph, options.float_layers)
        graph = correct_biases(graph, rows, options.granularity, left)
    # What quantization-aware training learned counts more than what calibration finds.
    ranges = calibrate(graph, rows, options.calibration, options.percentile) | graph.ranges
    return build(graph, alive(graph, ranges), options.granularity, options.float_layers)


def _rows(graph: Graph, options: QuantizeOptions, material: Material) -> npt.NDArray[np.float32]:
    if options.data_free:
        return synthetic_rows(graph, options.samples, material.seed)
    rows = material.calibration
    if len(rows) < FEWEST_ROWS:
        raise Refused(
            f"{len(rows)} calibration rows are too few to find ranges; at least {FEWEST_ROWS} are needed",
            remedy="mark more rows of the dataset as calibration",
        )
    if len(rows) > options.samples:
        chosen = np.random.default_rng(material.seed).choice(len(rows), options.samples, replace=False)
        rows = rows[np.sort(chosen)]
    return rows
