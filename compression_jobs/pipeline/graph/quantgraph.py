"""The quantised graph: int8 tensors, operators and integer weights, the one source of every int8 emitter.

Conventions are TensorFlow Lite's (https://ai.google.dev/edge/litert/models/quantization_spec): activations
are affine int8, batch 1, channels last; weights are symmetric int8 in [-127, 127]; biases are int32 with the
scale of input times weight. Scales are exact float32 values, so that every file format stores them unchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.errors import refuse_all
from compression_jobs.pipeline.graph.quant_arithmetic import (
    EXACT_BOUND,
    QMAX,
    QMIN,
    mean_multiplier,
    quantize_multipliers,
)

if TYPE_CHECKING:  # the web process reads the options of passes, and must not load onnx
    from onnx import NodeProto

Activation = Literal["none", "relu", "relu6"]
Function = Literal["logistic", "tanh", "leaky_relu", "hard_swish", "requantize"]
Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, left, bottom, right

MAX_AXES = 4  # of what is repeated or reordered; a batch of 1 in front of them moves nothing
SOFTMAX_SCALE = 1.0 / 256.0  # the specification fixes scale and zero point of int8 softmax
SOFTMAX_ZERO_POINT = -128
# Scale and zero point that the specification fixes for the results of functions.
FIXED_SCALES: dict[str, tuple[float, int]] = {"logistic": (1.0 / 256.0, -128), "tanh": (1.0 / 128.0, 0)}


@dataclass(frozen=True)
class Tensor:
    """An int8 activation; `real = scale * (stored - zero_point)`."""

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def size(self) -> int:
        """Number of elements, which is also the number of bytes."""
        return int(np.prod(self.shape))

    def same_scale(self, other: "Tensor") -> bool:
        """Whether stored values of both mean the same reals."""
        return self.scale == other.scale and self.zero_point == other.zero_point


@dataclass(frozen=True)
class Weights:
    """Symmetric int8 weights with one scale or one per output channel, and an int32 bias."""

    values: Int8Array
    scales: FloatArray
    bias: Int32Array

    @property
    def per_channel(self) -> bool:
        """Whether each output channel has its own scale."""
        return self.scales.size > 1

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return self.values.nbytes + self.bias.nbytes


@dataclass(frozen=True)
class State:
    """A tensor kept from one run to the next: `first` in the first run, then what the run before left in `next`."""

    name: str  # the tensor that a run reads; no operator makes it
    next: str  # the tensor, made by an operator, whose bytes the next run reads
    first: Int8Array


@dataclass(frozen=True)
class Op:
    """An operator: its inputs and its one output by tensor name."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Constant(Op):
    """A tensor that is the same in each run; it reads nothing."""

    values: Int8Array


@dataclass(frozen=True)
class Weighted(Op):
    """An operator with weights and an activation fused into it."""

    channel_axis: ClassVar[int] = 0  # of the weights; output channels

    weights: Weights
    activation: Activation


@dataclass(frozen=True)
class Conv(Weighted):
    """2-D convolution; weights are (output channels, height, width, input channels)."""

    stride: Pair
    padding: Padding
    dilation: Pair


@dataclass(frozen=True)
class DepthwiseConv(Weighted):
    """Depthwise convolution; weights are (1, height, width, input channels x multiplier)."""

    channel_axis: ClassVar[int] = 3

    stride: Pair
    padding: Padding
    dilation: Pair


@dataclass(frozen=True)
class FullyConnected(Weighted):
    """Dense layer; weights are (outputs, inputs)."""


@dataclass(frozen=True)
class Add(Op):
    """Sum of two tensors; sizes of 1 are repeated, as in NumPy."""

    activation: Activation


@dataclass(frozen=True)
class Sub(Op):
    """First tensor minus the second; sizes of 1 are repeated, as in NumPy."""

    activation: Activation


@dataclass(frozen=True)
class Mul(Op):
    """Product of two tensors; sizes of 1 are repeated, as in NumPy."""

    activation: Activation


@dataclass(frozen=True)
class Concat(Op):
    """Tensors one after the other along an axis; all share the scale of the output."""

    axis: int


@dataclass(frozen=True)
class LookUp(Op):
    """A function of single elements, one table of 256 answers: `quant_tables.table`.

    `requantize` brings values to another scale; `alpha` is the slope of `leaky_relu`.
    """

    function: Function
    alpha: float = 0.0


@dataclass(frozen=True)
class Pool(Op):
    """Average or maximum over windows; padding never counts. Output and input share their scale."""

    mode: Literal["average", "max"]
    kernel: Pair
    stride: Pair
    padding: Padding


@dataclass(frozen=True)
class Mean(Op):
    """Mean over height and width, to a scale of its own."""


@dataclass(frozen=True)
class Clamp(Op):
    """An activation that could not be fused; output and input share their scale."""

    activation: Activation


@dataclass(frozen=True)
class Pad(Op):
    """Zeros around height and width; output and input share their scale."""

    padding: Padding


@dataclass(frozen=True)
class Reshape(Op):
    """The same bytes under another shape (that of the output tensor)."""


@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class Slice(Op):
    """Of each axis the elements from `starts` on, `steps` apart, as many as the output has."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Enlarge(Op):
    """Each element several times in height and width: `factors`."""

    factors: Pair


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax over the last axis, to the scale the specification fixes."""


@dataclass(frozen=True)
class Island(Op):
    """ONNX operators, one behind the other, in real numbers between int8 tensors; only onnxruntime runs them.

    `names` are what `nodes` call `inputs`; what else they read is in `constants`. Pictures lie channels second. The
    last node makes the result.
    """

    nodes: "tuple[NodeProto, ...]"
    names: tuple[str, ...]
    constants: dict[str, npt.NDArray[np.float32]]
    reason: str


SAME_SCALE = (Pool, Clamp, Pad, Reshape, Transpose, Slice, Enlarge, Concat)


@dataclass
class QuantGraph:
    """Operators in execution order over named tensors; `states` are all that one run leaves to the next."""

    tensors: dict[str, Tensor]
    ops: list[Op]
    inputs: list[str]
    outputs: list[str]
    states: list[State] = field(default_factory=list)

    def tensor_of(self, op: Op, index: int = 0) -> Tensor:
        """The `index`-th input tensor of `op`."""
        return self.tensors[op.inputs[index]]

    def output_of(self, op: Op) -> Tensor:
        """The output tensor of `op`."""
        return self.tensors[op.output]

    def requantization(self, op: Weighted) -> tuple[Int32Array, Int32Array]:
        """Integer multipliers and shifts of `op`, one each per output channel."""
        source, target = self.tensor_of(op), self.output_of(op)
        real = source.scale * op.weights.scales / target.scale
        return quantize_multipliers(np.broadcast_to(real, op.weights.bias.shape))

    def product_multiplier(self, op: "Mul") -> tuple[int, int]:
        """Integer multiplier and shift of a product."""
        first, second = self.tensor_of(op), self.tensor_of(op, 1)
        real = first.scale * second.scale / self.output_of(op).scale
        multiplier, shift = quantize_multipliers(np.array(real))
        return int(multiplier), int(shift)

    def bounds(self, op: Op, activation: Activation) -> Pair:
        """Lowest and highest stored value that `activation` lets through on the output of `op`."""
        return activation_bounds(self.output_of(op), activation)

    def weighted(self) -> Iterator[Weighted]:
        """Every operator that has weights."""
        return (op for op in self.ops if isinstance(op, Weighted))

    @property
    def parameters(self) -> int:
        """Number of weights and biases, those left in float included."""
        real = [array for op in self.ops if isinstance(op, Island) for array in op.constants.values()]
        stored = sum(op.weights.values.size + op.weights.bias.size for op in self.weighted())
        return stored + sum(array.size for array in real if array.dtype == np.float32 and array.ndim)

    @property
    def state_bytes(self) -> int:
        """What is kept from one run to the next."""
        return sum(state.first.nbytes for state in self.states)

    def refuse_islands(self) -> None:
        """Raise Refused naming every operator that stays in real numbers, for formats that hold int8 alone."""
        islands = (op for op in self.ops if isinstance(op, Island))
        refuse_all(
            [f"{op.name}: {op.reason}" for op in islands],
            "choose an onnxruntime target, or replace these operators",
        )

    def problems(self) -> list[str]:
        """Everything that would make runtimes disagree: unequal scales, accumulators out of range."""
        of_ops = [problem for op in self.ops for problem in _problems_of(self, op)]
        return of_ops + [problem for state in self.states for problem in _state_problems(self, state)]


def activation_bounds(tensor: Tensor, activation: Activation) -> Pair:
    """Lowest and highest stored value of `tensor` after `activation` (TFLite: CalculateActivationRange)."""
    if activation == "none":
        return QMIN, QMAX
    low = max(QMIN, tensor.zero_point)
    if activation == "relu":
        return low, QMAX
    return low, min(QMAX, tensor.zero_point + round_half_away(6.0 / tensor.scale))


def round_half_away(value: float) -> int:
    """Nearest integer, halves away from zero, as C's `round`."""
    return int(np.floor(abs(value) + 0.5)) * (1 if value >= 0 else -1)


def accumulator_bound(source: Tensor, op: Weighted) -> FloatArray:
    """Largest magnitude that the accumulator of each output channel can reach with any input."""
    bias = op.weights.bias.astype(np.float64)
    rows = np.moveaxis(op.weights.values, op.channel_axis, 0).reshape(bias.size, -1).astype(np.float64)
    reach = max(QMAX - source.zero_point, source.zero_point - QMIN)
    return np.asarray(np.abs(rows).sum(axis=1) * reach + np.abs(bias))


def _problems_of(graph: QuantGraph, op: Op) -> Iterator[str]:
    target = graph.output_of(op)
    sources = [graph.tensors[name] for name in op.inputs]
    if isinstance(op, SAME_SCALE) and not all(source.same_scale(target) for source in sources):
        yield f"{op.name}: input and output must share their scale"
    if isinstance(op, Weighted):
        yield from _accumulator_problems(graph, op)
    if isinstance(op, Add | Sub) and 2 * max(source.scale for source in sources) >= target.scale * (1 << 20):
        yield f"{op.name}: the scale of its result is too small for its inputs"
    if isinstance(op, Mul) and sources[0].scale * sources[1].scale >= target.scale * (1 << 13):
        yield f"{op.name}: the product's scale is too small for its inputs"
    if isinstance(op, Add | Sub | Mul | Transpose | Slice) and len(target.shape) > MAX_AXES + 1:
        yield f"{op.name}: its tensors have {len(target.shape)} dimensions, {MAX_AXES + 1} are the most"
    if isinstance(op, Mean) and _mean_overflows(sources[0], target):
        yield f"{op.name}: the scale of its result is too small for its input"
    if isinstance(op, LookUp):
        yield from _function_problems(op, sources[0], target)


def _state_problems(graph: QuantGraph, state: State) -> Iterator[str]:
    read, left = graph.tensors[state.name], graph.tensors[state.next]
    if read.shape != left.shape or not read.same_scale(left):
        yield f"{state.name}: what is assigned to it has another shape or scale than what is read"
    if state.first.shape != read.shape:
        yield f"{state.name}: its first value has shape {list(state.first.shape)}, not {list(read.shape)}"
    if not any(op.output == state.next and not isinstance(op, Reshape) for op in graph.ops):
        yield f"{state.name}: no operator makes what it keeps"


def _mean_overflows(source: Tensor, target: Tensor) -> bool:
    count = source.shape[1] * source.shape[2]
    _, shift = mean_multiplier(source.scale / target.scale, count)
    return count * (QMAX - QMIN) * 2.0 ** max(shift, 0) >= EXACT_BOUND


def _function_problems(op: LookUp, source: Tensor, target: Tensor) -> Iterator[str]:
    fixed = FIXED_SCALES.get(op.function)
    if fixed is not None and fixed != (target.scale, target.zero_point):
        yield f"{op.name}: the scale of {op.function} must be {fixed[0]}, its zero point {fixed[1]}"
    # TensorFlow Lite's hard swish cannot scale up, and the others must stay within 32 bits.
    if source.scale >= target.scale * (128 if op.function == "hard_swish" else 1 << 22):
        yield f"{op.name}: the scale of its result is too small for its input"


def _accumulator_problems(graph: QuantGraph, op: Weighted) -> Iterator[str]:
    """Past 2^30 the products of 15-bit limbs on microcontrollers are no longer exact."""
    reach = accumulator_bound(graph.tensor_of(op), op)
    _, shifts = graph.requantization(op)
    worst = float(np.max(reach * 2.0 ** np.maximum(shifts, 0)))
    if worst >= EXACT_BOUND:
        yield f"{op.name}: its accumulator can reach {worst:.3g}, exact arithmetic ends at {EXACT_BOUND:.3g}"
