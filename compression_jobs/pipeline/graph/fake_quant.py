"""Int8 imitated in floats: rounding with straight-through gradients and ranges that are learned.

Straight-through: Bengio et al. 2013; learned scales and thresholds: Esser et al. 2020 (LSQ), Jain et al. 2020
(TQT). The arithmetic is that of `quant_ranges.affine` and `quant_weights`, so that what was trained is what runs.
"""

import torch
from torch import Tensor, nn

from compression_jobs.pipeline.graph.net import Op, Range
from compression_jobs.pipeline.graph.quant_ranges import LEVELS
from compression_jobs.pipeline.graph.quant_weights import WEIGHT_MAX, Granularity

LOW, HIGH = -128, 127
SMALLEST = 1e-6


def rounded(values: Tensor) -> Tensor:
    """The nearest integer; gradients pass as if nothing had happened."""
    return values + (torch.round(values) - values).detach()


class FakeQuant(Op):
    """An activation stored as affine int8 with a learned range `reach` = (low, high)."""

    def __init__(self, name: str, source: str, output: str, found: Range) -> None:
        super().__init__(name, [source], [output])
        self.reach = nn.Parameter(torch.tensor([min(found[0], 0.0), max(found[1], 0.0)]))

    def range(self) -> Range:
        """The learned interval, zero included."""
        low, high = (float(value) for value in self.reach.detach())
        return min(low, 0.0), max(high, 0.0, min(low, 0.0) + SMALLEST)

    def forward(self, x: Tensor) -> Tensor:
        """The value that int8 stores in place of each one."""
        low = self.reach[0].clamp_max(0.0)
        high = torch.maximum(self.reach[1].clamp_min(0.0), low + SMALLEST)
        scale = (high - low) / (LEVELS - 1)
        zero = rounded(LOW - low / scale).clamp(LOW, HIGH)
        stored = torch.clamp(rounded(x / scale) + zero, LOW, HIGH)
        return (stored - zero) * scale


class WeightQuant(nn.Module):
    """Weights stored as symmetric int8, clipped at a learned reach for each channel or for all."""

    def __init__(self, weight: Tensor, axis: int, granularity: Granularity) -> None:
        super().__init__()
        self.axis = axis
        self.per_channel = granularity == "per_channel"
        self.clip = nn.Parameter(self._peaks(weight.detach()))

    def _peaks(self, weight: Tensor) -> Tensor:
        sizes = weight.abs()
        if not self.per_channel:
            return sizes.max().clamp_min(SMALLEST)
        others = [axis for axis in range(weight.dim()) if axis != self.axis]
        return sizes.amax(others, keepdim=True).clamp_min(SMALLEST)

    def forward(self, weight: Tensor) -> Tensor:
        """The value that int8 stores in place of each weight; the largest one is always stored as 127."""
        # A clip beyond the largest weight could not be told from the exported weights.
        reach = torch.minimum(self.clip.abs().clamp_min(SMALLEST), self._peaks(weight))
        scale = reach / WEIGHT_MAX
        return torch.clamp(rounded(weight / scale), -WEIGHT_MAX, WEIGHT_MAX) * scale
