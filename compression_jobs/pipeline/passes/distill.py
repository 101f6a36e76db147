"""A small student learns from a larger model.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network" (KL at temperature T, times T squared);
similarities of embeddings: Tung & Mori 2019. The student is the original with fewer channels and fresh weights, a
PhiNet sized by the budgets, or a model of the user's own; the teacher is the original or another model.
"""

from collections.abc import Callable
from math import prod

import torch

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.channels import keep_channels, spaces_of
from compression_jobs.pipeline.graph.costs import total_macs
from compression_jobs.pipeline.graph.net import BatchNorm, Layer, Net
from compression_jobs.pipeline.graph.phinet import Budget, build, shape_of, sized
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.losses import ending_of
from compression_jobs.pipeline.passes.prune_channels import rounded_up
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import DistillOptions


def distill(net: Net, options: DistillOptions, material: Material) -> Net:
    """A trained student with the ports of the net."""
    teacher = material.other(options.teacher_model) if options.teacher_model else None
    trainer = Trainer(material, options, similarity=options.similarity, other_teacher=teacher)
    student = STUDENTS[options.student](net, options, material, trainer)
    for what, found in (("student", student), ("teacher", trainer.teacher)):
        _refuse_other_ports(net, found, what)
    trainer.train(student, options.steps)
    return student


def _scaled(net: Net, options: DistillOptions, material: Material, trainer: Trainer) -> Net:
    student = student_of(net, options.width, trainer.chance)
    trainer.prepare(student)
    for op in student:
        if isinstance(op, BatchNorm):  # fresh layers start normalised
            op.gamma.data.fill_(1.0)
            op.beta.data.zero_()
    trainer.units.give(student)
    return student


def _phinet(net: Net, options: DistillOptions, material: Material, trainer: Trainer) -> Net:
    scores = ending_of(net).scores
    if len(net.shape) != 3:
        raise Refused("a PhiNet reads pictures (channels, height, width)", remedy="take a scaled student")
    macs = total_macs(material.original) if material.original else None
    budget = Budget(options.macs or macs, options.ram_bytes, options.flash_bytes)
    answers = prod(shape_of(net, scores))
    shape = sized(net.shape, answers, budget)
    student = build(shape, net, scores, trainer.chance)
    trainer.units.give(student)
    return student


def _given(net: Net, options: DistillOptions, material: Material, trainer: Trainer) -> Net:
    """A model of the user's own, with the weights it came with."""
    student = material.other(options.student_model)
    trainer.prepare(student)
    return student


STUDENTS: dict[str, Callable[[Net, DistillOptions, Material, Trainer], Net]] = {
    "scaled": _scaled,
    "phinet": _phinet,
    "given": _given,
}


def _refuse_other_ports(net: Net, other: Net | None, what: str) -> None:
    """Student and teacher must read the same rows and give answers of the same shape."""
    if other is None:
        return
    mine, theirs = ((each.shape, shape_of(each, ending_of(each).scores)) for each in (net, other))
    if mine != theirs:
        raise Refused(
            f"the {what} turns {theirs[0]} into {theirs[1]}, the model {mine[0]} into {mine[1]}",
            remedy="give one with the same input and output",
        )


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
