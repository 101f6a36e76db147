"""Sub-networks of a Net: its first channels, without some residual blocks, sharing weights or cut out.

Slimmable networks (Yu et al. 2019); once for all (Cai et al. 2020). Channels are put in order of importance
first, so that the first ones are the ones to keep.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

import torch
from torch import Tensor, nn

from compression_jobs.pipeline.graph.blocks import residual_blocks, without
from compression_jobs.pipeline.graph.channels import Space, keep_channels, spaces_of
from compression_jobs.pipeline.graph.net import BatchNorm, Net

HAIR = 1e-6  # so that 0.3 of 10 is 3 and not 4


@dataclass(frozen=True, order=True)
class Size:
    """The share of channels that a sub-network has, and how many of the last residual blocks it lacks."""

    width: float
    blocks_out: int = 0


def in_order(net: Net, scores: Iterable[Tensor]) -> None:
    """Sort the channels of each space, the most important first; no output changes."""
    for space, score in zip(spaces_of(net), scores, strict=True):
        keep_channels(net, space, score.sort(descending=True, stable=True).indices)


def cut_out(net: Net, size: Size) -> Net:
    """A copy with only the first channels, and without the last blocks."""
    fresh = net.copy()
    for block in residual_blocks(fresh)[::-1][: size.blocks_out]:
        fresh = without(fresh, block)
    for space in spaces_of(fresh):
        keep_channels(fresh, space, torch.arange(channels_at(space, size.width)))
    return fresh


def channels_at(space: Space, width: float) -> int:
    """How many channels a share of a space is; at least one."""
    return max(ceil(space.size * width - HAIR), 1)


class Slice(nn.Module):
    """A sub-network whose weights are parts of another net's: training it trains the other."""

    def __init__(self, net: Net, size: Size, scores: str) -> None:
        super().__init__()
        self.net = cut_out(net, size)
        self.scores = scores
        owners = {op.name: op for op in net}
        self.shared = []
        for place, op in enumerate(self.net):
            for name, part in op.named_parameters(recurse=False):
                whole = cast(Tensor, getattr(owners[op.name], name))
                ranges = tuple(slice(0, size) for size in part.shape)
                self.shared.append((f"net.ops.{place}.{name}", whole, ranges))

    def forward(self, x: Tensor) -> Tensor:
        """The scores for a batch of rows."""
        return self.net.values(x, [self.scores])[0]

    def answer(self, x: Tensor) -> Tensor:
        """The scores, computed with the other net's weights."""
        parts = {key: whole[ranges] for key, whole, ranges in self.shared}
        return cast(Tensor, torch.func.functional_call(cast(Any, self), parts, (x,)))


def recalibrate(net: Net, rows: Tensor) -> None:
    """Give every batch normalisation the statistics of these rows in this very net (Yu & Huang 2019)."""
    norms = [op for op in net if isinstance(op, BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(rows)
    net.eval()
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
