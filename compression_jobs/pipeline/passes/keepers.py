"""Keep properties of weights while they are trained: zeros stay zero, shared values stay shared."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.net import Layer, Net

MOST_VALUES = 257  # 256 clusters and zero


@dataclass(frozen=True)
class Keeper:
    """Keeps a property of the weights: corrects them after each step, and maybe the gradients before."""

    after_step: Callable[[int, int], None]  # (step, steps)
    before_step: Callable[[], None] | None = None


def zeros_kept(net: Net) -> Keeper:
    """Weights that are zero stay zero."""
    found = [(layer, (layer.weight.detach() != 0).float()) for layer in net.layers()]
    masks = [(layer, mask) for layer, mask in found if not bool(mask.all())]

    def put_back(step: int, steps: int) -> None:
        del step, steps
        for layer, mask in masks:
            layer.weight.data *= mask

    return Keeper(put_back)


def values_shared(net: Net) -> Keeper:
    """Weights of a layer that are equal stay equal, and move by the sum of their gradients (Han et al. 2016)."""
    found = [(layer, *_shared(layer)) for layer in net.layers()]
    clustered = [(layer, places, counts) for layer, places, counts in found if counts is not None]

    def one_gradient() -> None:
        """The mean instead of the sum; Adam does not mind."""
        for layer, places, counts in clustered:
            if layer.weight.grad is not None:
                layer.weight.grad.copy_(_means(layer.weight.grad, places, counts))

    def one_value(step: int, steps: int) -> None:
        """Members of a cluster are equal to the last bit."""
        del step, steps
        for layer, places, counts in clustered:
            layer.weight.data.copy_(_means(layer.weight.data, places, counts))

    return Keeper(one_value, one_gradient)


def _shared(layer: Layer) -> tuple[Tensor, Tensor | None]:
    values, places, counts = torch.unique(layer.weight.detach(), return_inverse=True, return_counts=True)
    shares = len(values) <= MOST_VALUES and len(values) * 2 <= layer.weight.numel()
    return places, counts if shares else None


def _means(values: Tensor, places: Tensor, counts: Tensor) -> Tensor:
    flat = places.reshape(-1)
    # Adding up one after the other in double precision gives the same bytes each time.
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, flat, values.reshape(-1).double())
    return (sums / counts)[flat].float().reshape(values.shape)
