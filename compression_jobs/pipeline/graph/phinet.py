"""PhiNets: small nets of inverted residual blocks whose three numbers are found from the budgets of a board.

Paissan, Ancilotto & Farella 2022, "PhiNets: A Scalable Backbone for Low-power AI at the Edge". Block N of B has the
expansion t0 ((beta - 1) N + B) / B and widths grow with alpha: alpha is found from the multiplications, t0 from the
RAM, beta from the flash. Squeeze-and-excitation is left out, because int8 multiplies two tensors poorly.
"""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from compression_jobs.pipeline.graph import net as n
from compression_jobs.pipeline.graph.graph import make_node

BLOCKS = 5
BASE_WIDTH = 16
SMALLEST_SIDE = 4
ALPHAS = tuple(step / 16 for step in range(2, 49))
EXPANSIONS = tuple(step / 4 for step in range(4, 33))
SHAPES = tuple(step / 8 for step in range(2, 25))
ROUNDS = 3
FOLLOWS = ((ALPHAS, "alpha", "macs"), (EXPANSIONS, "t_zero", "ram_bytes"), (SHAPES, "beta", "flash_bytes"))


@dataclass(frozen=True)
class Budget:
    """What the net may cost in int8; None is no limit."""

    macs: int | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None


@dataclass(frozen=True)
class PhiNet:
    """The three numbers of the family."""

    alpha: float
    t_zero: float
    beta: float

    def expansion(self, block: int) -> float:
        """How much wider block N (from 1) is inside."""
        return self.t_zero * ((self.beta - 1) * block + BLOCKS) / BLOCKS


START = PhiNet(alpha=1.0, t_zero=6.0, beta=1.0)


@dataclass(frozen=True)
class Block:
    """One inverted residual block: 1 x 1 to `inner` channels, 3 x 3 on each, 1 x 1 to `width`."""

    source: int
    inner: int
    width: int
    stride: int
    side: tuple[int, int]  # of its input


def blocks_of(net: PhiNet, shape: list[int]) -> tuple[int, int, list[Block]]:
    """`(width of the stem, its stride, the blocks)` for pictures of a shape (channels, height, width)."""
    side = (shape[1], shape[2])
    stride = 2 if min(side) >= 8 * SMALLEST_SIDE else 1
    side = _halved(side, stride)
    width = stem = _channels(BASE_WIDTH * net.alpha)
    found = []
    for block in range(1, BLOCKS + 1):
        step = 2 if block % 2 and min(side) >= 2 * SMALLEST_SIDE else 1
        wider = _channels(width * 2) if step == 2 else width
        found.append(Block(width, _channels(width * net.expansion(block)), wider, step, side))
        side, width = _halved(side, step), wider
    return stem, stride, found


def _channels(count: float) -> int:
    return max(round(count), 2)


def _halved(side: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-side[0] // stride), -(-side[1] // stride)


def costs(net: PhiNet, shape: list[int], classes: int) -> Budget:
    """Multiplications, activations and weights in int8: three bytes a channel are added for bias and scale."""
    stem, _, blocks = blocks_of(net, shape)
    first = prod(blocks[0].side)
    macs = first * stem * shape[0] * 9 + blocks[-1].width * classes
    weights = stem * (shape[0] * 9 + 12) + (blocks[-1].width + 12) * classes
    ram = prod(shape) + first * stem
    for block in blocks:
        before, after = prod(block.side), prod(_halved(block.side, block.stride))
        macs += block.inner * (before * block.source + after * 9 + after * block.width)
        weights += block.inner * (block.source + 9 + block.width + 24) + 12 * block.width
        kept = before * block.source if block.stride == 1 else 0  # for the sum at the end
        moments = (
            before * (block.source + block.inner),
            (before + after) * block.inner + kept,
            after * (block.inner + block.width) + kept,
        )
        ram = max(ram, *moments)
    return Budget(macs, ram, weights)


def sized(shape: list[int], classes: int, budget: Budget) -> PhiNet:
    """The net that uses a budget: each number follows its own cost, and alpha gives way until all hold."""
    net = START
    for _ in range(ROUNDS):
        for values, number, cost in FOLLOWS:
            if getattr(budget, cost) is not None:
                own = Budget(**{cost: getattr(budget, cost)})
                net = _largest(net, number, values, shape, classes, own)
    if _within(costs(net, shape, classes), budget):
        return net
    below = tuple(value for value in ALPHAS if value <= net.alpha)
    net = _largest(net, "alpha", below, shape, classes, budget)
    for values, number, _ in FOLLOWS[::-1]:  # what alpha gave up may be more than was needed
        above = tuple(value for value in values if value >= getattr(net, number))
        net = _largest(net, number, above, shape, classes, budget)
    return net


def _largest(
    net: PhiNet, number: str, values: tuple[float, ...], shape: list[int], classes: int, budget: Budget
) -> PhiNet:
    """The net with the largest of the values for a number at which the budget holds; else with the smallest."""
    tried = [replace(net, **{number: value}) for value in values]
    return next((each for each in tried[::-1] if _within(costs(each, shape, classes), budget)), tried[0])


def _within(found: Budget, budget: Budget) -> bool:
    limits = [(getattr(found, cost), getattr(budget, cost)) for _, _, cost in FOLLOWS]
    return all(limit is None or cost <= limit for cost, limit in limits)


def build(net: PhiNet, like: n.Net, scores: str, chance: torch.Generator) -> n.Net:
    """A PhiNet with fresh weights and normalisation that reads and answers as `like` does; what `like` computes
    behind `scores`, such as a softmax, stays."""
    classes = int(prod(shape_of(like, scores)))
    writer = _Writer(chance)
    stem, stride, blocks = blocks_of(net, like.shape)
    value = writer.conv(like.source, like.shape[0], stem, 3, stride)
    value = writer.plain("Relu", torch.relu, value)
    for block in blocks:
        value = writer.block(value, block)
    value = writer.plain("GlobalAveragePool", lambda x: x.mean((2, 3), keepdim=True), value)
    flat = writer.name("flat")
    writer.ops.append(n.Reshape(flat, value, flat, [blocks[-1].width]))
    writer.dense(flat, blocks[-1].width, classes, scores, shape_of(like, scores))
    fresh = n.Net(like.source, like.shape, list(like.outputs))
    fresh.set_ops([*writer.ops, *_behind(like, scores)])
    fresh.constants = dict(like.constants)
    fresh.remove_dead()
    return fresh


def shape_of(net: n.Net, name: str) -> list[int]:
    """The shape of a tensor for one row."""
    with torch.no_grad():
        return list(net.values(torch.zeros(1, *net.shape), [name])[0].shape[1:])


def _behind(net: n.Net, name: str) -> list[n.Op]:
    """Copies of the operators that depend on a tensor."""
    known, found = {name}, []
    for op in net.copy():
        if known.intersection(op.inputs):
            known.update(op.outputs)
            found.append(op)
    return found


class _Writer:
    """Appends operators with names of their own."""

    def __init__(self, chance: torch.Generator) -> None:
        self.chance = chance
        self.ops: list[n.Op] = []

    def name(self, what: str) -> str:
        return f"phinet_{len(self.ops)}_{what}"

    def conv(
        self, source: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> str:
        name = self.name("conv")
        weight = self._fresh(outputs, inputs // groups, kernel, kernel)
        half = kernel // 2
        window = {"strides": [stride] * 2, "pads": [half] * 4, "dilations": [1, 1], "groups": groups}
        self.ops.append(n.Conv(name, source, f"{name}_plain", weight, None, **window))
        zero, one = torch.zeros(outputs), torch.ones(outputs)
        norm = n.BatchNorm(f"{name}_norm", f"{name}_plain", name, zero, one)
        norm.gamma.data.fill_(1.0)
        self.ops.append(norm)
        return name

    def block(self, source: str, block: Block) -> str:
        inside = self.plain("Relu", torch.relu, self.conv(source, block.source, block.inner, 1))
        inside = self.conv(inside, block.inner, block.inner, 3, block.stride, groups=block.inner)
        inside = self.plain("Relu", torch.relu, inside)
        result = self.conv(inside, block.inner, block.width, 1)
        if block.stride == 1 and block.source == block.width:
            return self.plain("Add", torch.add, result, source)
        return result

    def dense(self, source: str, inputs: int, outputs: int, result: str, shape: list[int]) -> None:
        name = self.name("dense")
        flat = result if shape == [outputs] else f"{name}_flat"
        self.ops.append(n.Dense(name, source, flat, self._fresh(outputs, inputs), None))
        if flat != result:
            self.ops.append(n.Reshape(self.name("shape"), flat, result, shape))

    def plain(self, op: str, apply: n.Apply, *inputs: str) -> str:
        name = self.name(op.lower())
        self.ops.append(n.Plain(make_node(op, list(inputs), [name], name), list(inputs), apply))
        return name

    def _fresh(self, *shape: int) -> Tensor:
        """He et al. 2015."""
        deviation: float = (2 / prod(shape[1:])) ** 0.5
        return torch.randn(shape, generator=self.chance) * deviation
