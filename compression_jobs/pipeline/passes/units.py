"""Training on numbers of any size: while it lasts, the last layer answers in units of the truth's own spread.

Adam moves every weight by about the same amount a step. A net that answers in hundreds would hardly get there from
fresh weights, so its last layer is divided by the deviation of the truth before training and multiplied after it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from compression_jobs.pipeline.graph.net import BatchNorm, Layer, Net, Reshape

LEAST_DEVIATION = 1e-6


@dataclass
class Units:
    """Mean and deviation of what a net should answer, and whether its answers are in these units now."""

    mean: float = 0.0
    deviation: float = 1.0
    in_use: bool = field(default=False, init=False)

    @classmethod
    def of(cls, truth: Tensor) -> "Units":
        """The units of some numbers."""
        values = truth.double()
        return cls(float(values.mean()), max(float(values.std(unbiased=False)), LEAST_DEVIATION))

    def inside(self, answers: Tensor) -> Tensor:
        """The answers in these units while they are in use, else as they are."""
        return (answers - self.mean) / self.deviation if self.in_use else answers

    @contextmanager
    def used_by(self, net: Net) -> Iterator[None]:
        """Let the net answer in these units; a net whose last operator cannot be scaled answers as before."""
        if self == Units() or last_layer(net) is None:
            yield
            return
        for values, moved in _ends(net):
            values -= self.mean * moved
            values /= self.deviation
        self.in_use = True
        try:
            yield
        finally:
            self.in_use = False
            self.give(net)

    def give(self, net: Net) -> None:
        """Let a net that answers around 0, as fresh weights do, answer around the truth."""
        for values, moved in _ends(net):
            values *= self.deviation
            values += self.mean * moved


def _ends(net: Net) -> list[tuple[Tensor, float]]:
    """What scales the answers of a net, and what also shifts them (1.0) or does not (0.0)."""
    last = last_layer(net)
    if last is None:
        return []
    slope, offset = (last.gamma, last.beta) if isinstance(last, BatchNorm) else (last.weight, last.bias)
    return [(slope.data, 0.0), (offset.data, 1.0)]


def last_layer(net: Net) -> Layer | BatchNorm | None:
    """The operator whose weights and shifts scale the answer; None when another computation ends the net."""
    name = net.outputs[0]
    if len(net.outputs) > 1:
        return None
    op = net.producer(name)
    while isinstance(op, Reshape) and not net.readers(name):
        name = op.inputs[0]
        op = net.producer(name)
    read_elsewhere = len(net.readers(name)) > (name not in net.outputs)
    if read_elsewhere or not isinstance(op, (Layer, BatchNorm)):
        return None
    return None if isinstance(op, Layer) and op.quantizer is not None else op
