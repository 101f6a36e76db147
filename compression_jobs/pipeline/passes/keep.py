"""Nothing is changed: the step of models that are only carried to a runtime."""

from compression_jobs.pipeline.graph.graph import Graph
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import NoOptions


def keep(graph: Graph, options: NoOptions, material: Material) -> Graph:
    """The graph as it is."""
    return graph
