"""A model as a torch module: an ordered list of named operators that passes can look at, rewrite and train.

Tensors have names, as in ONNX; each operator names what it reads and what it makes. Channels are second, the
first dimension is the batch and may have any size while training. Layers own their weights as parameters;
other constants lie in `Net.constants` and are not trained. This module loads torch: only the limited child does.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from onnx import NodeProto
from torch import Tensor, nn

Range = tuple[float, float]
Apply = Callable[..., Any]
EPSILON = 1e-5


class Op(nn.Module):
    """An operator: a name, the tensors it reads and the tensors it makes."""

    def __init__(self, name: str, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.name = name
        self.inputs = inputs
        self.outputs = outputs

    @property
    def output(self) -> str:
        """The first tensor it makes."""
        return self.outputs[0]


class Layer(Op):
    """An operator with trained weights; `quantizer`, when set, stands between the weights and their use."""

    out_axis = 0
    in_axis = 1

    def __init__(self, name: str, source: str, output: str, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(name, [source], [output])
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(self.width_of(weight)) if bias is None else bias)
        self.quantizer: nn.Module | None = None

    def width_of(self, weight: Tensor) -> int:
        """The number of channels that these weights make."""
        return int(weight.shape[self.out_axis])

    @property
    def width(self) -> int:
        """The number of channels it makes."""
        return self.width_of(self.weight)

    @property
    def matrix(self) -> Tensor:
        """The weights with one row a channel that it makes."""
        return self.weight.detach().reshape(self.width, -1)

    @property
    def used_weight(self) -> Tensor:
        """The weights as the forward pass uses them."""
        return self.weight if self.quantizer is None else cast(Tensor, self.quantizer(self.weight))


class Dense(Layer):
    """A dense layer on the last axis; weights are (out, in). `is_flat`: its input is rows of numbers."""

    is_flat = True

    def forward(self, x: Tensor) -> Tensor:
        """`x W^T + b`."""
        return nn.functional.linear(x, self.used_weight, self.bias)


class Conv(Layer):
    """A convolution over one or two spatial axes; weights are (out, in / groups, ...)."""

    def __init__(
        self, name: str, source: str, output: str, weight: Tensor, bias: Tensor | None, **window: Any
    ) -> None:
        super().__init__(name, source, output, weight, bias)
        self.strides: list[int] = window["strides"]
        self.pads: list[int] = window["pads"]
        self.dilations: list[int] = window["dilations"]
        self.groups: int = window["groups"]

    @property
    def kernel(self) -> list[int]:
        """The size of the window."""
        return list(self.weight.shape[2:])

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is filtered alone."""
        return self.groups > 1 and self.groups == self.width and self.weight.shape[1] == 1

    def forward(self, x: Tensor) -> Tensor:
        """The convolution; uneven padding is put around the input first."""
        half = len(self.pads) // 2
        begins, ends = self.pads[:half], self.pads[half:]
        padding = begins
        if begins != ends:
            x = nn.functional.pad(x, torch_pads(begins, ends))
            padding = [0] * half
        convolve = cast(Apply, nn.functional.conv1d if half == 1 else nn.functional.conv2d)
        return cast(
            Tensor,
            convolve(x, self.used_weight, self.bias, self.strides, padding, self.dilations, self.groups),
        )


class ConvTranspose(Layer):
    """A transposed convolution; weights are (in, out / groups, ...)."""

    out_axis, in_axis = 1, 0

    def __init__(
        self, name: str, source: str, output: str, weight: Tensor, bias: Tensor | None, **window: Any
    ) -> None:
        self.groups: int = window["groups"]
        super().__init__(name, source, output, weight, bias)
        self.strides: list[int] = window["strides"]
        self.padding: list[int] = window["padding"]
        self.output_padding: list[int] = window["output_padding"]
        self.dilations: list[int] = window["dilations"]

    def width_of(self, weight: Tensor) -> int:
        """The number of channels that these weights make."""
        return int(weight.shape[1]) * int(self.__dict__.get("groups", 1))

    def forward(self, x: Tensor) -> Tensor:
        """The transposed convolution."""
        convolve = cast(
            Apply, nn.functional.conv_transpose1d if x.dim() == 3 else nn.functional.conv_transpose2d
        )
        places = (self.strides, self.padding, self.output_padding, self.groups, self.dilations)
        return cast(Tensor, convolve(x, self.used_weight, self.bias, *places))


class Embedding(Layer):
    """Rows of a table by their numbers; weights are (numbers, out). It has no bias."""

    out_axis, in_axis = 1, 0

    def __init__(self, name: str, source: str, output: str, weight: Tensor, is_flat: bool) -> None:
        super().__init__(name, source, output, weight, torch.zeros(0))
        self.is_flat = is_flat  # one number a row

    @property
    def matrix(self) -> Tensor:
        """The weights with one row a channel that it makes."""
        return self.weight.detach().T

    def forward(self, x: Tensor) -> Tensor:
        """The row of each number; below 0 they count from the end."""
        return self.used_weight[x.long()]


class BatchNorm(Op):
    """Batch normalisation behind a layer (Ioffe & Szegedy 2015); folded away before export."""

    def __init__(self, name: str, source: str, output: str, mean: Tensor, variance: Tensor) -> None:
        super().__init__(name, [source], [output])
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", mean.clone())
        self.register_buffer("variance", variance.clone())
        self.gamma = nn.Parameter(torch.sqrt(variance + EPSILON))
        self.beta = nn.Parameter(mean.clone())
        self.momentum = 0.1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the batch while training, by the running statistics otherwise."""
        # A batch of one place a channel has no variance of its own.
        training = self.training and x.numel() // x.shape[1] > 1
        return nn.functional.batch_norm(
            x, self.mean, self.variance, self.gamma, self.beta, training, self.momentum, EPSILON
        )


class Reshape(Op):
    """Each row of the batch under another shape."""

    def __init__(self, name: str, source: str, output: str, shape: list[int]) -> None:
        super().__init__(name, [source], [output])
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """The same values in another shape."""
        return x.reshape(x.shape[0], *self.shape)


class Plain(Op):
    """An operator without weights: the node it came from and what it computes."""

    def __init__(self, node: NodeProto, inputs: list[str], apply: Apply) -> None:
        super().__init__(node.name, inputs, [name for name in node.output if name])
        self.node = node
        self.apply_to = apply

    @property
    def op_type(self) -> str:
        """ONNX's word for it."""
        return str(self.node.op_type)

    def forward(self, *values: Any) -> Any:
        """What the node computes."""
        return self.apply_to(*values)


class Net(nn.Module):
    """Operators in running order between one input and some outputs.

    `ranges` holds what quantization-aware training learned: the interval of each activation by tensor.
    """

    def __init__(self, source: str, shape: list[int], outputs: list[str]) -> None:
        super().__init__()
        self.source = source
        self.shape = shape  # of one row
        self.outputs = outputs
        self.ops = nn.ModuleList()
        self.constants: dict[str, Tensor] = {}
        self.ranges: dict[str, Range] = {}

    def __iter__(self) -> Iterator[Op]:
        return iter(cast("list[Op]", list(self.ops)))

    def forward(self, x: Tensor) -> Tensor:
        """The first output for a batch of rows."""
        return self.values(x, [self.outputs[0]])[0]

    def values(self, x: Tensor, wanted: list[str]) -> list[Tensor]:
        """The tensors of these names for a batch of rows."""
        known: dict[str, Any] = {**self.constants, self.source: x}
        for op in self:
            made = op(*[known[name] if name else None for name in op.inputs])
            known.update(zip(op.outputs, made if len(op.outputs) > 1 else [made], strict=True))
        return [known[name] for name in wanted]

    def layers(self) -> list[Layer]:
        """Every operator with weights."""
        return [op for op in self if isinstance(op, Layer)]

    def producer(self, name: str) -> Op | None:
        """The operator that makes a tensor."""
        return next((op for op in self if name in op.outputs), None)

    def readers(self, name: str) -> list[Op]:
        """The operators that read a tensor."""
        return [op for op in self if name in op.inputs]

    def used_once(self, name: str) -> bool:
        """Whether exactly one operator reads the tensor and it does not leave the net."""
        return name not in self.outputs and sum(op.inputs.count(name) for op in self) == 1

    def fresh_name(self, base: str) -> str:
        """A name like `base` that no tensor or operator has."""
        taken = {self.source, *self.constants}
        for op in self:
            taken.update((op.name, *op.outputs))
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        return name

    def set_ops(self, ops: list[Op]) -> None:
        """Make these the operators, in running order."""
        self.ops = nn.ModuleList(ops)

    def insert_after(self, op: Op, fresh: Op) -> None:
        """Put an operator right behind another one."""
        ops = list(self)
        ops.insert(ops.index(op) + 1, fresh)
        self.set_ops(ops)

    def replace(self, op: Op, fresh: list[Op]) -> None:
        """Put operators (or none) in the place of one."""
        ops = list(self)
        at = ops.index(op)
        self.set_ops(ops[:at] + fresh + ops[at + 1 :])

    def redirect(self, old: str, new: str) -> None:
        """Let every reader of tensor `old`, and the outputs, take `new` instead."""
        for op in self:
            op.inputs = [new if name == old else name for name in op.inputs]
        self.outputs = [new if name == old else name for name in self.outputs]

    def remove_dead(self) -> None:
        """Remove operators that no output depends on."""
        needed, kept = set(self.outputs), []
        for op in reversed(list(self)):
            if needed.intersection(op.outputs):
                needed.update(op.inputs)
                kept.append(op)
        self.set_ops(kept[::-1])

    def copy(self) -> "Net":
        """An independent copy."""
        return copy.deepcopy(self)


def torch_pads(begins: list[int], ends: list[int]) -> list[int]:
    """ONNX's pads of the spatial axes in torch's order: last axis first."""
    pairs = list(zip(begins, ends, strict=True))[::-1]
    return [size for pair in pairs for size in pair]
