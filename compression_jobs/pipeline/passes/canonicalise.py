"""Bring a graph to the one form again, after passes that may have left it."""

from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.graph.ingest import REWRITES, checked
from compression_jobs.pipeline.graph.running import ROWS_COMPARED, Reference
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import NoOptions


def canonicalise(graph: Graph, options: NoOptions, material: Material) -> Graph:
    """The graph in the form of `graph.ingest`, each rewrite checked on calibration rows."""
    reference = Reference.of(graph, material.calibration[:ROWS_COMPARED])
    result = graph.copy()
    for rewrite in REWRITES:
        result = checked(result, rewrite, reference)
    return result
