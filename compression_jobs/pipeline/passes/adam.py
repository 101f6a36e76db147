"""The optimiser of all training: Adam (Kingma & Ba 2015).

Own, because torch's loads its compiler at the first step, which takes seconds that a short training does not have.
"""

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.net import Net

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# Learned ranges are few and each moves everything: they go slower than weights.
RANGES_RATE = 0.5


class Adam:
    """Moves the parameters of a net by their gradients."""

    def __init__(self, net: Net, rate: float) -> None:
        self.steps = 0
        self.moved = [
            (
                value,
                rate * (RANGES_RATE if _is_range(name) else 1.0),
                torch.zeros_like(value),
                torch.zeros_like(value),
            )
            for name, value in net.named_parameters()
        ]

    def step(self, share: float) -> None:
        """One step at a share of the learning rate."""
        self.steps += 1
        first, second = 1 - BETA1**self.steps, 1 - BETA2**self.steps
        with torch.no_grad():
            for value, rate, mean, square in self.moved:
                if value.grad is None:
                    continue
                mean.lerp_(value.grad, 1 - BETA1)
                square.mul_(BETA2).addcmul_(value.grad, value.grad, value=1 - BETA2)
                size: Tensor = (square / second).sqrt_().add_(EPSILON)
                value.addcdiv_(mean, size, value=-rate * share / first)


def _is_range(name: str) -> bool:
    return ".quantizer." in name or name.endswith("reach")
