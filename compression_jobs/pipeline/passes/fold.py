"""Fold what is known ahead into constants and weights (Jacob et al. 2018, section 3.2)."""

from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import checked, fold_to_the_end
from compression_jobs.pipeline.graph.rewrites import layers, structure
from compression_jobs.pipeline.graph.running import ROWS_COMPARED, Reference
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import NoOptions

REWRITES = (
    fold_to_the_end,
    layers.fold_pads,
    layers.fold_batch_norm,
    layers.fold_affine,
    structure.remove_identities,
    structure.remove_dead,
)


def fold(graph: Graph, options: NoOptions, material: Material) -> Graph:
    """The graph with constants, scales and batch normalisation folded, checked on calibration rows."""
    reference = Reference.of(graph, material.calibration[:ROWS_COMPARED])
    result = graph.copy()
    for rewrite in REWRITES:
        result = checked(result, rewrite, reference)
    return result
