"""What taking channels out of a space, or rounding a layer to int8, does to a net that is not retrained."""

from collections.abc import Callable

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.channels import Space, keep_channels, spaces_of
from compression_jobs.pipeline.graph.fake_quant import WeightQuant, rounded
from compression_jobs.pipeline.graph.net import Layer, Net
from compression_jobs.pipeline.graph.quant_ranges import LEVELS

HALF = 0.5


def without_half(net: Net, place: int, scores: Tensor) -> Net:
    """A copy that keeps the better half of one space's channels; `scores` say which are better."""
    fresh = net.copy()
    space: Space = spaces_of(fresh)[place]
    count = max(round(space.size * HALF), 1)
    kept = scores.sort(descending=True, stable=True).indices[:count]
    keep_channels(fresh, space, kept.sort().values)
    return fresh


def rounded_answers(net: Net, layer: Layer, rows: Tensor, scores: str) -> Tensor:
    """The scores of a net in which one layer's weights (one scale for all) and results are rounded to int8."""
    layer.quantizer = WeightQuant(layer.weight, layer.out_axis, "per_tensor")
    plain = layer.forward
    layer.forward = lambda x: _rounded(plain(x))
    try:
        with torch.no_grad():
            return net.values(rows, [scores])[0]
    finally:
        layer.quantizer = None
        del layer.forward


def _rounded(values: Tensor) -> Tensor:
    low, high = values.min().clamp_max(0.0), values.max().clamp_min(0.0)
    scale = ((high - low) / (LEVELS - 1)).clamp_min(1e-12)
    return (rounded((values - low) / scale) * scale) + low


def effects(net: Net, scores: list[Tensor], loss: Callable[[Net], float]) -> list[float]:
    """How much the loss rises when each space loses the worse half of its channels; never below 0."""
    before = loss(net)
    return [max(loss(without_half(net, place, score)) - before, 0.0) for place, score in enumerate(scores)]
