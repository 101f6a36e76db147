"""Once for all: one net whose sub-networks are all trained together, and the sub-networks taken out of it.

Cai et al. 2020, "Once-for-All"; the sandwich rule (each step trains the largest, the smallest and two others) and
distillation in place (the largest teaches the others, here together with the original): Yu & Huang 2019, "Universally
Slimmable Networks". The cost does not depend on how many targets take a sub-network.
"""

import torch
from torch import Tensor

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.batch_norm import insert_batch_norm
from compression_jobs.pipeline.graph.blocks import residual_blocks
from compression_jobs.pipeline.graph.channels import spaces_of
from compression_jobs.pipeline.graph.net import Net
from compression_jobs.pipeline.graph.slicing import Size, Slice, cut_out, in_order, recalibrate
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.losses import ending_of, gradients_of
from compression_jobs.pipeline.passes.prune_channels import importances
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import ElasticOptions, SubnetOptions

WIDTHS = 7  # between the narrowest and the whole, both included


def elastic(net: Net, options: ElasticOptions, material: Material) -> Net:
    """The whole net, its channels in order of importance, trained together with its sub-networks."""
    trainer = Trainer(material, options)
    _refuse_missing(net, options.blocks)
    trainer.prepare(net)
    in_order(net, importances(net, spaces_of(net), "taylor", trainer))
    train_together(net, sizes_of(options), trainer, options.steps)
    recalibrate(net, torch.from_numpy(material.calibration))
    return net


def sizes_of(options: ElasticOptions) -> list[Size]:
    """The sizes that are trained beside the whole net, the smallest first."""
    narrowest = options.narrowest
    widths = [narrowest + (1 - narrowest) * place / (WIDTHS - 1) for place in range(WIDTHS)]
    sizes = [Size(width, out) for out in range(options.blocks, -1, -1) for width in widths]
    return [size for size in dict.fromkeys(sizes) if size != Size(1.0)]


def train_together(net: Net, sizes: list[Size], trainer: Trainer, steps: int) -> None:
    """Train the net and, in each step, its smallest sub-network and two others; `sizes` begin with the smallest."""
    scores = ending_of(net).scores
    slices = [Slice(net, size, scores) for size in sizes]
    for part in slices:
        part.train()

    def gradients(rows: Tensor) -> None:
        x = trainer.x[rows]
        whole = net.values(x, [scores])[0]
        gradients_of(trainer.loss_of(net, whole, rows))
        lesson = trainer.lesson(whole.detach(), rows)
        for place in _chosen(len(slices), trainer.chance):
            part = slices[place]
            gradients_of(trainer.loss_of(net, part.answer(x), rows, lesson))

    trainer.train_with(net, steps, gradients)


def _chosen(count: int, chance: torch.Generator) -> list[int]:
    """The smallest, and two others by chance."""
    others = 1 + torch.randperm(max(count - 1, 0), generator=chance)[:2]
    return [0, *others.tolist()][:count]


def subnet(net: Net, options: SubnetOptions, material: Material) -> Net:
    """A sub-network with its own statistics; what the whole net has stands for its trained scales and shifts.

    Batch normalisation was folded when the net was stored. What its outputs have as mean and deviation on
    calibration rows are the shift and scale that it was trained with, and those all sizes share.
    """
    rows = torch.from_numpy(material.calibration)
    _refuse_missing(net, options.blocks_out)
    insert_batch_norm(net, rows)
    found = cut_out(net, Size(options.width, options.blocks_out))
    recalibrate(found, rows)
    return found


def _refuse_missing(net: Net, blocks: int) -> None:
    found = len(residual_blocks(net))
    if found < blocks:
        raise Refused(
            f"the model has {found} residual blocks, {blocks} are to be left out",
            remedy="leave fewer out, or vary the width alone",
        )
