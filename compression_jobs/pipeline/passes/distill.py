"""A small student learns from the model it was cut from.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network" (KL at temperature T, times T squared);
similarities of embeddings: Tung & Mori 2019. The student is the teacher with fewer channels and fresh weights.
"""

import torch

from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.channels import keep_channels, spaces_of
from compression_jobs.pipeline.graph.net import BatchNorm, Layer, Net
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.prune_channels import rounded_up
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import DistillOptions


def distill(net: Net, options: DistillOptions, material: Material) -> Net:
    """A student with a share of the net's channels, trained from fresh weights."""
    trainer = Trainer(material, options, similarity=options.similarity)
    student = student_of(net, options.width, trainer.chance)
    trainer.prepare(student)
    for op in student:
        if isinstance(op, BatchNorm):  # fresh layers start normalised
            op.gamma.data.fill_(1.0)
            op.beta.data.zero_()
    trainer.train(student, options.steps)
    return student


def student_of(net: Net, width: float, chance: torch.Generator) -> Net:
    """The net with a share of its channels and fresh weights."""
    student = net.copy()
    fold_batch_norm(student)
    for space in spaces_of(student):
        keep_channels(student, space, torch.arange(rounded_up(space.size * width, 1)))
    for layer in student.layers():
        _freshen(layer, chance)
    return student


def _freshen(layer: Layer, chance: torch.Generator) -> None:
    """He et al. 2015: variance 2 over the inputs of a channel."""
    inputs = layer.weight[0].numel() if layer.out_axis == 0 else layer.weight[:, 0].numel()
    fresh = torch.randn(layer.weight.shape, generator=chance)
    layer.weight.data = fresh * (2 / inputs) ** 0.5
    layer.bias.data = torch.zeros_like(layer.bias)
