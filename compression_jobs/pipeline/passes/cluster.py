"""Weight sharing: each layer's weights take few values, which are then trained together.

Han et al. 2016, "Deep Compression", section 3 (k-means, linear initialisation). Zeros stay zeros, so that pruned
nets keep their sparsity. Helps bytes over the air and on disk after coding; speed and RAM stay as they are. Int8
weights stay shared when they are quantised per tensor.
"""

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.net import Net
from compression_jobs.pipeline.passes.keepers import values_shared, zeros_kept
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import ClusterOptions

ROUNDS = 50


def cluster(net: Net, options: ClusterOptions, material: Material) -> Net:
    """The net whose layers hold at most `clusters` values beside zero each, fine-tuned with shared weights."""
    fold_batch_norm(net)  # its scales would make one value into as many as there are channels
    for layer in net.layers():
        layer.weight.data = _clustered(layer.weight.detach(), options.clusters)
    if options.steps:
        Trainer(material, options).train(net, options.steps, (values_shared(net), zeros_kept(net)))
    return net


def _clustered(weights: Tensor, clusters: int) -> Tensor:
    alive = weights != 0
    values = weights[alive]
    if len(values) <= clusters:
        return weights
    centres, places = kmeans(values, clusters)
    fresh = torch.zeros_like(weights)
    fresh[alive] = centres[places]
    return fresh


def kmeans(values: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """`(centres, place of each value)` for numbers on a line; centres start evenly spaced."""
    centres = torch.linspace(float(values.min()), float(values.max()), clusters, dtype=torch.float64)
    values = values.double()
    places = _nearest(values, centres)
    for _ in range(ROUNDS):
        counts = torch.bincount(places, minlength=clusters)
        sums = torch.zeros(clusters, dtype=torch.float64).index_add_(0, places, values)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        before, places = places, _nearest(values, centres)
        if torch.equal(before, places):
            break
    return centres.float(), places


def _nearest(values: Tensor, centres: Tensor) -> Tensor:
    """Between sorted centres the borders are half-way."""
    order = centres.argsort(stable=True)
    ordered = centres[order]
    return order[torch.bucketize(values, (ordered[1:] + ordered[:-1]) / 2)]
