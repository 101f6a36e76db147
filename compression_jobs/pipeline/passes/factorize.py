"""Layers as products of two thinner ones: truncated singular value decomposition.

Dense layers and embeddings: Xue et al. 2013; convolutions (k x k to r channels, then 1 x 1): Zhang et al. 2016, "Accelerating
Very Deep Convolutional Networks". The rank of each layer follows from the energy that must remain, or a share.
"""

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.net import Conv, Dense, Embedding, Layer, Net
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import FactorizeOptions

HALVINGS = 30
SMALLEST_ENERGY = 1e-6


def factorize(net: Net, options: FactorizeOptions, material: Material) -> Net:
    """The net with every layer split in two that becomes smaller by it, retrained."""
    fold_batch_norm(net)
    layers = [layer for layer in net.layers() if _can_split(layer)]
    if options.budget is not None:
        options = options.model_copy(update={"rank": None, "energy": energy_for(layers, options.budget)})
    for layer in layers:
        _split(net, layer, options)
    trainer = Trainer(material, options)
    if options.steps:
        trainer.prepare(net)
        trainer.train(net, options.steps)
    return net


def _can_split(layer: Layer) -> bool:
    if isinstance(layer, Conv):
        return layer.groups == 1
    return isinstance(layer, (Dense, Embedding))


def _split(net: Net, layer: Layer, options: FactorizeOptions) -> None:
    matrix = layer.matrix
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = _rank(values, options)
    if rank * sum(matrix.shape) >= matrix.numel():
        return
    root = values[:rank].sqrt()
    replace_by_product(net, layer, (left[:, :rank] * root).float(), (root[:, None] * right[:rank]).float())


def energy_for(layers: list[Layer], budget: float) -> float:
    """The largest energy at which the layers keep at most this share of their weights; found by halving."""
    shapes = [layer.matrix for layer in layers]
    spectra = [torch.linalg.svdvals(matrix.double()) for matrix in shapes]
    allowed = budget * sum(matrix.numel() for matrix in shapes)
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        ranks = [_rank(values, FactorizeOptions(energy=middle)) for values in spectra]
        left = sum(min(r * sum(m.shape), m.numel()) for r, m in zip(ranks, shapes, strict=True))
        low, high = (middle, high) if left <= allowed else (low, middle)
    return max(low, SMALLEST_ENERGY)


def _rank(values: Tensor, options: FactorizeOptions) -> int:
    if options.rank is not None:
        return max(round(len(values) * options.rank), 1)
    energy = torch.cumsum(values**2, 0) / (values**2).sum().clamp_min(1e-30)
    return min(int((energy < options.energy - 1e-12).sum()) + 1, len(values))


def replace_by_product(net: Net, layer: Layer, left: Tensor, right: Tensor) -> tuple[Layer, Layer]:
    """Put two layers in the place of one whose weights, as a matrix, are `left @ right`."""
    inside = net.fresh_name(f"{layer.output}_inside")
    first_name, second_name = net.fresh_name(f"{layer.name}_a"), net.fresh_name(f"{layer.name}_b")
    source, rank = layer.inputs[0], len(right)
    if isinstance(layer, Conv):
        spatial = len(layer.kernel)
        first: Layer = Conv(
            first_name,
            source,
            inside,
            right.reshape(rank, *layer.weight.shape[1:]),
            None,
            strides=layer.strides,
            pads=layer.pads,
            dilations=layer.dilations,
            groups=1,
        )
        ones = [1] * spatial
        point = left.reshape(*left.shape, *ones)
        window = {"strides": ones, "pads": [0] * 2 * spatial, "dilations": ones, "groups": 1}
        second: Layer = Conv(second_name, inside, layer.output, point, layer.bias.detach().clone(), **window)
    elif isinstance(layer, Embedding):
        first = Embedding(first_name, source, inside, right.T.contiguous(), layer.is_flat)
        second = Dense(second_name, inside, layer.output, left, None)
        second.is_flat = layer.is_flat
    else:
        first = Dense(first_name, source, inside, right, None)
        second = Dense(second_name, inside, layer.output, left, layer.bias.detach().clone())
        if isinstance(layer, Dense):
            first.is_flat = second.is_flat = layer.is_flat
    net.replace(layer, [first, second])
    return first, second
