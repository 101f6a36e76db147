"""Unstructured magnitude pruning with a cubic schedule.

Zhu & Gupta 2017, "To prune, or not to prune"; soft pruning: He et al. 2018. Zeros save bytes over the air, after
coding; no runtime here computes faster for them.
"""

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.net import Layer, Net
from compression_jobs.pipeline.passes.keepers import Keeper
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import PruneOptions, Scope

RAMP = 0.6  # share of the steps in which sparsity rises; the rest only heals
STEPS_A_MASK = 5
LEAST_KEPT = 0.02  # of each layer, so that none is cut through


def prune(net: Net, options: PruneOptions, material: Material) -> Net:
    """The net with the given share of its weights exactly zero, retrained."""
    trainer = Trainer(material, options)
    trainer.prepare(net)
    schedule = GrowingZeros(net, options)
    trainer.train(net, options.steps, (Keeper(schedule.after_step),))
    schedule.set_masks(options.sparsity)
    schedule.apply()
    return net


class GrowingZeros:
    """Sets the smallest weights to zero, more of them from step to step."""

    def __init__(self, net: Net, options: PruneOptions) -> None:
        self.layers = net.layers()
        self.options = options
        self.masks: list[Tensor] = []
        self.settled = False

    def after_step(self, step: int, steps: int) -> None:
        """Renew the masks now and then, and keep what is zero at zero."""
        done = (step + 1) / max(steps * RAMP, 1)
        if not self.settled and (step % STEPS_A_MASK == 0 or done >= 1):
            self.set_masks(self.options.sparsity * (1 - (1 - min(done, 1.0)) ** 3))
            self.settled = done >= 1
            self.apply()
        elif self.settled or self.options.mode == "hard":
            self.apply()

    def set_masks(self, sparsity: float) -> None:
        """Choose what is zero at this sparsity."""
        if not self.settled:
            self.masks = masks_of(self.layers, sparsity, self.options.scope)

    def apply(self) -> None:
        """Set what is chosen to zero."""
        for layer, mask in zip(self.layers, self.masks, strict=False):
            layer.weight.data *= mask


def masks_of(layers: list[Layer], sparsity: float, scope: Scope) -> list[Tensor]:
    """One where a weight stays and zero where it goes, for each layer."""
    if scope == "per_layer":
        return [_largest(layer.weight.detach().abs(), 1 - sparsity) for layer in layers]
    sizes = [layer.weight.detach().abs() for layer in layers]
    everything = torch.cat([size.reshape(-1) for size in sizes])
    kept = torch.split_with_sizes(_largest(everything, 1 - sparsity), [size.numel() for size in sizes])
    masks = [part.reshape(size.shape) for part, size in zip(kept, sizes, strict=True)]
    return [torch.maximum(mask, _largest(size, LEAST_KEPT)) for mask, size in zip(masks, sizes, strict=True)]


def _largest(values: Tensor, share: float) -> Tensor:
    """One at the largest values; ties go to the first."""
    count = max(round(values.numel() * share), 1)
    order = torch.sort(values.reshape(-1), descending=True, stable=True).indices[:count]
    mask = torch.zeros(values.numel())
    mask[order] = 1.0
    return mask.reshape(values.shape)
