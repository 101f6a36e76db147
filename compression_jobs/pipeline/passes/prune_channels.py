"""Structured pruning: whole channels are taken out round by round, with retraining after each.

Magnitude: Li et al. 2017, "Pruning Filters for Efficient ConvNets"; Taylor: Molchanov et al. 2019, "Importance
Estimation for Neural Network Pruning". Groups of channels that must go together follow `graph.channels`.
"""

import math

import torch
from torch import Tensor

from compression_jobs.pipeline.graph.channel_effects import effects
from compression_jobs.pipeline.graph.channels import Space, keep_channels, spaces_of
from compression_jobs.pipeline.graph.net import BatchNorm, Layer, Net, Op
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.losses import gradients_of, no_gradients
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import Importance, PruneChannelsOptions

TAYLOR_BATCHES = 8
LEAST_KEPT = 0.1  # of each layer's channels when layers compete


def prune_channels(net: Net, options: PruneChannelsOptions, material: Material) -> Net:
    """The net with fewer channels, retrained; the layers that make the result keep theirs.

    Rounds end early when the budget of parameters is met, or with the last one that kept the accuracy floor.
    """
    trainer = Trainer(material, options)
    trainer.prepare(net)
    full = [space.size for space in spaces_of(net)]
    for done in range(1, options.rounds + 1):
        before = net.copy()
        share = (1 - options.ratio) ** (done / options.rounds)
        spaces = spaces_of(net)
        scores = importances(net, spaces, options.importance, trainer)
        shares = _shares(net, scores, share, options, trainer)
        for space, keep in zip(spaces, _chosen(scores, full, shares, options), strict=True):
            keep_channels(net, space, keep)
        steps = options.steps * done // options.rounds - options.steps * (done - 1) // options.rounds
        trainer.train(net, steps)
        if options.floor is not None and trainer.accuracy_on(net, "validation") < options.floor:
            return before
        if options.parameters is not None and weights_in(net) <= options.parameters:
            break
    return net


def weights_in(net: Net) -> int:
    """The number of weights and biases of all layers."""
    return sum(layer.weight.numel() + layer.bias.numel() for layer in net.layers())


def importances(net: Net, spaces: list[Space], kind: Importance, trainer: Trainer) -> list[Tensor]:
    """One number a channel for each space, 1 on average."""
    if kind == "magnitude":
        return sizes_of_channels(spaces)
    return [_relative(scores) for scores in _taylor(net, spaces, trainer)]


def sizes_of_channels(spaces: list[Space]) -> list[Tensor]:
    """The importance of channels by the size of their weights alone."""
    return [_relative(_magnitude(space)) for space in spaces]


def _magnitude(space: Space) -> Tensor:
    """Squared size of the filters that make each channel and of the columns that read it."""
    total = torch.zeros(space.size)
    for member in space.members:
        if isinstance(member.op, Layer) and member.role != "reads":
            total += _relative(_by_channel(member.op.weight.detach() ** 2, member.op.out_axis, 1))
        elif isinstance(member.op, Layer):
            total += _relative(_by_channel(member.op.weight.detach() ** 2, member.op.in_axis, member.repeat))
    return total


def _by_channel(values: Tensor, axis: int, repeat: int) -> Tensor:
    flat = values.movedim(axis, 0).reshape(values.shape[axis], -1).sum(1)
    return flat.reshape(-1, repeat).sum(1)


def _relative(scores: Tensor) -> Tensor:
    return scores / scores.mean().clamp_min(1e-12)


def _taylor(net: Net, spaces: list[Space], trainer: Trainer) -> list[Tensor]:
    """Squared first-order change of the loss when a channel is set to zero, over some batches."""
    totals = [torch.zeros(space.size) for space in spaces]
    net.eval()  # with batch statistics the scale of a filter has no gradient
    for rows in trainer.some_batches(TAYLOR_BATCHES):
        no_gradients(net)
        gradients_of(trainer.loss(net, rows))
        for space, total in zip(spaces, totals, strict=True):
            total += _change(space) ** 2
    no_gradients(net)
    return totals


def _change(space: Space) -> Tensor:
    change = torch.zeros(space.size)
    for member in space.members:
        if member.role in ("makes", "follows"):
            change += _change_at(member.op, space.size)
    return change


def _change_at(op: Op, size: int) -> Tensor:
    if isinstance(op, BatchNorm):
        return _product(op.gamma).reshape(size) + _product(op.beta).reshape(size)
    assert isinstance(op, Layer)
    return _by_channel(_product(op.weight), op.out_axis, 1)


def _product(parameter: torch.nn.Parameter) -> Tensor:
    gradient = parameter.grad
    return torch.zeros_like(parameter) if gradient is None else parameter.detach() * gradient


def _shares(
    net: Net, scores: list[Tensor], share: float, options: PruneChannelsOptions, trainer: Trainer
) -> list[float]:
    """The share of each space that stays: `share` for all, or more where the loss rises most when half goes."""
    if options.scope != "sensitivity":
        return [share] * len(scores)
    rises = torch.tensor(effects(net, scores, lambda each: trainer.loss_on(each, "calibration")))
    weights = 1 / (1 + rises / rises.median().clamp_min(1e-6))
    gone = (1 - share) * weights / weights.mean()
    return [1 - min(float(part), 1 - LEAST_KEPT) for part in gone]


def _chosen(
    scores: list[Tensor], full: list[int], shares: list[float], options: PruneChannelsOptions
) -> list[Tensor]:
    """The channels to keep in each space, when these shares of the first widths may remain."""
    if options.scope != "global":
        counts = [size * share for size, share in zip(full, shares, strict=True)]
    else:
        share = shares[0]
        everything = torch.cat(scores)
        allowed = min(max(round(sum(full) * share), 1), len(everything))
        floor = float(everything.sort(descending=True, stable=True).values[allowed - 1])
        counts = [
            max(float((score >= floor).sum()), size * LEAST_KEPT)
            for score, size in zip(scores, full, strict=True)
        ]
    return [
        _best(score, rounded_up(count, options.multiple_of))
        for score, count in zip(scores, counts, strict=True)
    ]


def rounded_up(count: float, multiple: int) -> int:
    """At least one, and a multiple where one is asked for."""
    # A hair less, because 0.5 of 16 must not become 9 by rounding.
    return max(math.ceil((count - 1e-6) / multiple), 1) * multiple


def _best(scores: Tensor, count: int) -> Tensor:
    order = scores.sort(descending=True, stable=True).indices[: min(count, len(scores))]
    return order.sort().values
