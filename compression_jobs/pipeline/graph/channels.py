"""Which channels of a Net belong together, and how to take some of them out so that the net really shrinks.

Channels flow from the layer that makes them through activations, pools, residual sums and depthwise layers to
the layers that read them; all of these lose the same channels. What is not understood is left whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compression_jobs.pipeline.graph import net as n

KEEPS_CHANNELS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softplus", "Erf", "Gelu",
     "Exp", "Sqrt", "Abs", "Neg", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
     "Resize", "Pad"}
)  # fmt: skip
COMBINES = frozenset({"Add", "Sub", "Mul", "Div", "Min", "Max", "Sum"})


@dataclass(frozen=True)
class Member:
    """An operator (or constant) that has the channels: in its outputs, in its inputs, or along with them.

    `repeat`: how many neighbouring columns stand for one channel, after a picture was flattened.
    """

    role: str  # makes, reads, follows, shape, constant
    op: Any
    repeat: int = 1


@dataclass
class Space:
    """Channels that are kept or taken out together."""

    size: int
    members: list[Member] = field(default_factory=list)
    frozen: bool = False

    @property
    def name(self) -> str:
        """The layers that make these channels."""
        return "+".join(member.op.name for member in self.members if member.role == "makes")

    def layers(self, *roles: str) -> Iterator[n.Layer]:
        """The layers with one of the roles."""
        return (m.op for m in self.members if m.role in roles and isinstance(m.op, n.Layer))


def spaces_of(net: n.Net) -> list[Space]:
    """Every group of channels that may be taken out, in the order in which they are made."""
    tracer = _Tracer(net)
    for op in net:
        tracer.follow(op)
    for name in net.outputs:
        tracer.freeze(name)
    return tracer.free_spaces()


def widths(net: n.Net) -> dict[str, int]:
    """The number of channels of every group."""
    return {space.name: space.size for space in spaces_of(net)}


class _Tracer:
    """Follows each tensor's channels from operator to operator."""

    def __init__(self, net: n.Net) -> None:
        self.net = net
        self.shapes = shapes_of(net)
        self.spaces: list[Space] = []
        self.joined: list[int] = []  # union-find: a space, or one that stands for it
        self.of: dict[str, tuple[int, int]] = {}  # tensor -> (space, repeat)
        self._new(net.source, 1)
        self.freeze(net.source)

    def follow(self, op: n.Op) -> None:
        """Say which space the outputs belong to, and what the operator has to do with its inputs' spaces."""
        if isinstance(op, n.Embedding):
            self._lost(op)
        elif isinstance(op, n.Layer):
            self._layer(op)
        elif isinstance(op, n.BatchNorm):
            self._along(op, op.inputs[0])
            self._root(op.inputs[0]).members.append(Member("follows", op))
        elif isinstance(op, n.Reshape):
            self._reshape(op)
        elif isinstance(op, n.Plain) and self._keeps_channels(op):
            self._along(op, next(name for name in op.inputs if name in self.of))
        elif isinstance(op, n.Plain) and op.op_type in COMBINES:
            self._combine(op)
        else:
            self._lost(op)

    def free_spaces(self) -> list[Space]:
        roots = [index for index in range(len(self.spaces)) if self._find(index) == index]
        return [self.spaces[index] for index in roots if not self.spaces[index].frozen]

    def freeze(self, name: str) -> None:
        """Leave the channels of a tensor whole."""
        if name in self.of:
            self._root(name).frozen = True

    def _layer(self, op: n.Layer) -> None:
        source, grouped = op.inputs[0], getattr(op, "groups", 1) > 1
        if isinstance(op, n.Conv) and op.is_depthwise and self.shapes[source][1] == op.width:
            self._along(op, source)
            self._root(source).members.append(Member("follows", op))
            return
        self._new(op.output, op.width)
        if grouped or (isinstance(op, n.Dense) and not op.is_flat):
            self.freeze(source)
            self.freeze(op.output)
            return
        self._root(op.output).members.append(Member("makes", op))
        self._root(source).members.append(Member("reads", op, self.of[source][1]))

    def _reshape(self, op: n.Reshape) -> None:
        source = op.inputs[0]
        before, after = self.shapes[source][1:], self.shapes[op.output][1:]
        repeat = self.of[source][1]
        if before[0] == after[0]:
            self.of[op.output] = (self.of[source][0], repeat)
        elif len(after) == 1 and repeat == 1:
            self.of[op.output] = (self.of[source][0], after[0] // before[0])
        else:
            self._lost(op)
            return
        self._root(source).members.append(Member("shape", op, self.of[op.output][1]))

    def _keeps_channels(self, op: n.Plain) -> bool:
        known = [name for name in op.inputs if name in self.of]
        same = len(known) == 1 and self.shapes[known[0]][1:2] == self.shapes[op.output][1:2]
        return op.op_type in KEEPS_CHANNELS and same and len(op.outputs) == 1

    def _combine(self, op: n.Plain) -> None:
        known = [name for name in op.inputs if name in self.of]
        shape = self.shapes[op.output]
        alike = all(
            self.shapes[name][:2] == shape[:2] and len(self.shapes[name]) == len(shape) for name in known
        )
        constants = [name for name in op.inputs if name not in self.of]
        fitting = all(_channel_axis(self.net.constants[name], shape) is not None for name in constants)
        if not alike or not fitting or len({self.of[name][1] for name in known}) != 1:
            self._lost(op)
            return
        for other in known[1:]:
            self._join(known[0], other)
        self._along(op, known[0])
        for name in constants:
            if self.net.constants[name].numel() > 1:
                self._root(known[0]).members.append(
                    Member("constant", (name, len(shape)), self.of[known[0]][1])
                )

    def _along(self, op: n.Op, source: str) -> None:
        self.of[op.output] = self.of[source]

    def _lost(self, op: n.Op) -> None:
        for name in op.inputs:
            self.freeze(name)
        for name in op.outputs:
            self._new(name, 1)
            self.freeze(name)

    def _new(self, name: str, size: int) -> None:
        self.of[name] = (len(self.spaces), 1)
        self.joined.append(len(self.spaces))
        self.spaces.append(Space(size))

    def _find(self, index: int) -> int:
        while self.joined[index] != index:
            index = self.joined[index]
        return index

    def _root(self, name: str) -> Space:
        return self.spaces[self._find(self.of[name][0])]

    def _join(self, one: str, other: str) -> None:
        first, second = sorted((self._find(self.of[one][0]), self._find(self.of[other][0])))
        if first == second:
            return
        kept, gone = self.spaces[first], self.spaces[second]
        self.joined[second] = first
        kept.members += gone.members
        kept.frozen |= gone.frozen or kept.size != gone.size


def shapes_of(net: n.Net) -> dict[str, list[int]]:
    """The shape of every tensor for a batch of one."""
    names = [net.source, *(name for op in net for name in op.outputs)]
    training = net.training
    net.eval()
    with torch.no_grad():
        made = net.values(torch.zeros(1, *net.shape), names)
    net.train(training)
    return {name: list(value.shape) for name, value in zip(names, made, strict=True)}


def _channel_axis(constant: Tensor, shape: list[int]) -> int | None:
    """The axis of a constant that runs along the channels; -1 for a bare number, None when it has more."""
    if constant.numel() == 1:
        return -1
    axis = constant.dim() - (len(shape) - 1)
    fits = axis >= 0 and constant.shape[axis] == shape[1] == constant.numel()
    return axis if fits else None


def keep_channels(net: n.Net, space: Space, kept: Tensor) -> None:
    """Keep these channels (indexes in rising order) of a space and drop its others."""
    for member in space.members:
        columns = (kept[:, None] * member.repeat + torch.arange(member.repeat)).reshape(-1)
        if member.role == "constant":
            name, rank = member.op
            constant = net.constants[name]
            net.constants[name] = constant.index_select(constant.dim() - rank + 1, columns)
        elif member.role == "shape":
            member.op.shape[0] = len(columns)
        elif member.role == "reads":
            member.op.weight = _chosen(member.op.weight, member.op.in_axis, columns)
        elif isinstance(member.op, n.BatchNorm):
            _keep_of_norm(member.op, kept)
        else:
            _keep_of_layer(member.op, kept)
    space.size = len(kept)


def _keep_of_layer(op: n.Layer, kept: Tensor) -> None:
    depthwise = isinstance(op, n.Conv) and op.is_depthwise
    op.weight = _chosen(op.weight, op.out_axis, kept)
    op.bias = _chosen(op.bias, 0, kept)
    if isinstance(op, n.Conv) and depthwise:
        op.groups = len(kept)


def _keep_of_norm(op: n.BatchNorm, kept: Tensor) -> None:
    op.mean, op.variance = op.mean[kept], op.variance[kept]
    op.gamma, op.beta = _chosen(op.gamma, 0, kept), _chosen(op.beta, 0, kept)


def _chosen(values: Tensor, axis: int, kept: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().index_select(axis, kept))
