"""Keep properties of weights while they are trained: zeros stay zero, shared values stay shared."""

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.net import Layer, Net

MOST_VALUES = 257  # 256 clusters and zero


class ZerosKept:
    """Weights that are zero stay zero."""

    def __init__(self, net: Net) -> None:
        self.masks = [(layer, (layer.weight.detach() != 0).float()) for layer in net.layers()]
        self.masks = [(layer, mask) for layer, mask in self.masks if not bool(mask.all())]

    def before_step(self) -> None:
        """Nothing may pull at a zero."""
        for layer, mask in self.masks:
            if layer.weight.grad is not None:
                layer.weight.grad *= mask

    def after_step(self, step: int, steps: int) -> None:
        """Put the zeros back."""
        del step, steps
        for layer, mask in self.masks:
            layer.weight.data *= mask


class ValuesShared:
    """Weights of a layer that are equal stay equal, and move by the sum of their gradients (Han et al. 2016)."""

    def __init__(self, net: Net) -> None:
        found = [(layer, *_shared(layer)) for layer in net.layers()]
        self.layers = [(layer, places, counts) for layer, places, counts in found if counts is not None]

    def before_step(self) -> None:
        """Give all members of a cluster their mean gradient; Adam does not mind that it is not the sum."""
        for layer, places, counts in self.layers:
            if layer.weight.grad is not None and counts is not None:
                layer.weight.grad.copy_(_means(layer.weight.grad, places, counts))

    def after_step(self, step: int, steps: int) -> None:
        """Make members of a cluster equal to the last bit."""
        del step, steps
        for layer, places, counts in self.layers:
            if counts is not None:
                layer.weight.data.copy_(_means(layer.weight.data, places, counts))


def _shared(layer: Layer) -> tuple[Tensor, Tensor | None]:
    values, places, counts = torch.unique(layer.weight.detach(), return_inverse=True, return_counts=True)
    shares = len(values) <= MOST_VALUES and len(values) * 2 <= layer.weight.numel()
    return places, counts if shares else None


def _means(values: Tensor, places: Tensor, counts: Tensor) -> Tensor:
    flat = places.reshape(-1)
    # Adding up one after the other in double precision gives the same bytes each time.
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, flat, values.reshape(-1).double())
    return (sums / counts)[flat].float().reshape(values.shape)
