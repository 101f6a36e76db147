"""Ready `.tflite` files of a few operators, as converters write them: what stands in models of the wild beside layers."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from compression_jobs.pipeline.emit.tflite_file import OPERATOR, TfliteFile

Shape = tuple[int, ...]
SCALE, ZERO = 0.05, 3


class Written:
    """A file of one input and one output; `last` is the tensor that the next operator reads."""

    def __init__(self, shape: Shape) -> None:
        self.file = TfliteFile("a converter's")
        self.first = self.last = self.file.tensor("x", shape, SCALE, ZERO)

    def op(
        self,
        code: int,
        shape: Shape,
        options: Any = None,
        behind: Iterable[int] = (),
        before: Iterable[int] = (),
        scale: float = SCALE,
        zero: int = ZERO,
        version: int = 2,
    ) -> "Written":
        """One more operator with one result; constants stand behind or before what it reads."""
        made = self.file.tensor("", shape, scale, zero)
        self.file.operator(code, version, [*before, self.last, *behind], made, options)
        self.last = made
        return self

    def numbers(self, *values: int) -> int:
        """A constant of whole numbers; one alone is a scalar."""
        return self.file.constant(np.array(values if len(values) != 1 else values[0], np.int32))

    def listed(self, *values: int) -> int:
        """A constant list of whole numbers."""
        return self.file.constant(np.array(values, np.int32))

    def stored(self, values: Any, scale: float = 0.02, zero: int = -5) -> int:
        """A constant that stands for reals."""
        return self.file.constant(np.array(values, np.int8), np.array([scale]), zero_point=zero)

    def several(self, code: int, shapes: list[Shape], inputs: list[int], options: Any) -> list[int]:
        """An operator with several results."""
        made = [self.file.tensor("", shape, SCALE, ZERO) for shape in shapes]
        self.file.operator(code, 2, inputs, made[0], options)
        self.file.graph.operators[-1].outputs = made
        return made

    def joined(self, parts: list[int], shape: Shape, axis: int) -> "Written":
        """The parts one behind the other."""
        made, options = self.file.tensor("", shape, SCALE, ZERO), schema.ConcatenationOptionsT()
        options.axis = axis
        self.file.operator(OPERATOR.CONCATENATION, 2, parts, made, options)
        self.last = made
        return self

    def content(self) -> bytes:
        """The bytes."""
        return self.file.finish([self.first], [self.last])


def options(kind: str, **fields: Any) -> Any:
    made = getattr(schema, f"{kind}OptionsT")()
    for name, value in fields.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made


def rescaled() -> Written:
    """Keras: Rescaling, a product and a sum with one number each."""
    made = Written((1, 4, 4, 3))
    made.op(OPERATOR.MUL, (1, 4, 4, 3), options("Mul"), [made.stored(77)], scale=0.1, zero=-9)
    return made.op(OPERATOR.ADD, (1, 4, 4, 3), options("Add"), [made.stored(-100)], scale=0.11, zero=20)


def normalised() -> Written:
    """One number a channel, taken from it in front."""
    made = Written((1, 4, 4, 3))
    made.op(OPERATOR.SUB, (1, 4, 4, 3), options("Sub"), before=[made.stored([[[[5, -90, 100]]]])], scale=0.1)
    return made.op(
        OPERATOR.MUL, (1, 4, 4, 3), options("Mul", fusedActivationFunction=1), [made.stored([9, 8, -7])]
    )


def split_evenly() -> Written:
    made = Written((1, 3, 2, 6))
    parts = made.several(
        OPERATOR.SPLIT, [(1, 3, 2, 2)] * 3, [made.numbers(3), made.last], options("Split", numSplits=3)
    )
    return made.joined(parts[::-1], (1, 3, 2, 6), -1)


def split_by_sizes() -> Written:
    made = Written((1, 5, 2, 4))
    inputs = [made.last, made.listed(1, -1), made.numbers(1)]
    parts = made.several(
        OPERATOR.SPLIT_V, [(1, 1, 2, 4), (1, 4, 2, 4)], inputs, options("SplitV", numSplits=2)
    )
    return made.joined(parts[::-1], (1, 5, 2, 4), 1)


def unpacked() -> Written:
    made = Written((1, 3, 8))
    parts = made.several(OPERATOR.UNPACK, [(1, 8)] * 3, [made.last], options("Unpack", num=3, axis=1))
    packed = made.file.tensor("", (1, 8, 3), SCALE, ZERO)
    made.file.operator(OPERATOR.PACK, 2, parts[::-1], packed, options("Pack", valuesCount=3, axis=2))
    made.last = packed
    return made


def sliced() -> Written:
    made = Written((1, 7, 6, 4))
    strided = options("StridedSlice", beginMask=1, endMask=0b1001, shrinkAxisMask=0b0100)
    made.op(
        OPERATOR.STRIDED_SLICE,
        (1, 3, 4),
        strided,
        [made.listed(0, -6, 2, 0), made.listed(0, 6, 3, 0), made.listed(1, 2, 1, 1)],
    )
    return made.op(OPERATOR.SLICE, (1, 2, 3), options("Slice"), [made.listed(0, 1, 1), made.listed(1, -1, 3)])


def mean(shape: Shape, axes: Shape, kept: Shape, scale: float = 0.03) -> Callable[[], Written]:
    def make() -> Written:
        made = Written(shape)
        found = options("Reducer", keepDims=len(kept) == len(shape))
        return made.op(OPERATOR.MEAN, kept, found, [made.listed(*axes)], scale=scale, zero=-11)

    return make


def rows_of_a_dense_layer() -> Written:
    """As converters flatten what a dense layer does to each step: between reshapes, rows stand where the batch was."""
    made = Written((1, 5, 12)).op(OPERATOR.RESHAPE, (5, 12), options("Reshape"), version=1)
    made.op(OPERATOR.MUL, (5, 12), options("Mul"), [made.stored(range(12))], scale=0.02, zero=9)
    weights = made.stored(np.arange(36).reshape(3, 12) - 18, 0.004, 0)
    made.op(OPERATOR.FULLY_CONNECTED, (5, 3), options("FullyConnected"), [weights, -1], scale=0.02)
    made.op(OPERATOR.SOFTMAX, (5, 3), options("Softmax", beta=1.0), scale=1 / 256, zero=-128)
    return made.op(OPERATOR.SQUEEZE, (5, 3), options("Squeeze"), scale=1 / 256, zero=-128)


def softmax_of_one() -> Written:
    made = mean((1, 4, 3), (1, 2), (1,))()
    return made.op(OPERATOR.SOFTMAX, (1,), options("Softmax", beta=1.0), scale=1 / 256, zero=-128)


def dense_without_options() -> Written:
    made = Written((1, 12))
    weights = made.stored(np.arange(36).reshape(3, 12) - 18, 0.004, 0)
    return made.op(OPERATOR.FULLY_CONNECTED, (1, 3), None, [weights, -1], scale=0.07, version=1)


def split_in(parts: int) -> Callable[[], Written]:
    def make() -> Written:
        made = Written((1, parts))
        inputs, how = [made.numbers(1), made.last], options("Split", numSplits=parts)
        return made.joined(made.several(OPERATOR.SPLIT, [(1, 1)] * parts, inputs, how), (1, parts), 1)

    return make


def squeezed() -> Written:
    return Written((1, 1, 1, 10)).op(OPERATOR.SQUEEZE, (10,), options("Squeeze"))


def with_constants_beside() -> Written:
    made = Written((1, 2, 3))
    parts = [made.stored([[[1, 2, -3]]], SCALE, ZERO), made.last]
    return made.joined(parts, (1, 3, 3), -2)


def of_constants_alone() -> Written:
    made = Written((1, 4))
    made.last = made.stored([[1, -2, 3, 4]])
    return made.op(OPERATOR.ADD, (1, 4), options("Add"), [made.stored([[9, 8, 7, 6]])])


def grouped() -> Written:
    made = Written((1, 5, 5, 4))
    how = options("Conv2D", padding=1, strideH=1, strideW=1)
    return made.op(OPERATOR.CONV_2D, (1, 3, 3, 6), how, [made.stored(np.ones((6, 3, 3, 2)), 0.01, 0)])


def padded_with_ones(*shape: int) -> Callable[[], Written]:
    """An input of the shape, three numbers in front and one behind in height and width."""

    def make() -> Written:
        made = Written(shape)
        amounts = made.file.constant(np.array([[0, 0], [3, 1], [3, 1], [0, 0]], np.int32))
        size = (1, shape[1] + 4, shape[2] + 4, shape[3])
        return made.op(OPERATOR.PADV2, size, options("PadV2"), [amounts, made.stored(99, SCALE, ZERO)])

    return make


def batches() -> Written:
    made = Written((1, 2, 3)).op(OPERATOR.RESHAPE, (2, 3), options("Reshape"), version=1)
    return made.op(OPERATOR.MEAN, (3,), options("Reducer"), [made.listed(0)])


def largest() -> Written:
    made = Written((1, 5, 4, 6))
    return made.op(OPERATOR.REDUCE_MAX, (1, 6), options("Reducer"), [made.listed(1, 2)])


def causal() -> Written:
    """Keras: padding in front of a 1-D convolution, then of its channels."""
    made = Written((1, 6, 3))
    made.op(
        OPERATOR.PAD,
        (1, 10, 3),
        options("Pad"),
        [made.file.constant(np.array([[0, 0], [4, 0], [0, 0]], np.int32))],
    )
    made.op(OPERATOR.RESHAPE, (1, 1, 10, 3), options("Reshape"), [made.listed(1, 1, 10, 3)], version=1)
    amounts = np.array([[0, 0], [1, 0], [0, 2], [2, 1]], np.int32)
    return made.op(OPERATOR.PAD, (1, 2, 12, 6), options("Pad"), [made.file.constant(amounts)])


def resized(size: tuple[int, int]) -> Callable[[], Written]:
    def make() -> Written:
        made = Written((1, 3, 4, 5))
        how = options("ResizeNearestNeighbor", halfPixelCenters=True)
        return made.op(OPERATOR.RESIZE_NEAREST_NEIGHBOR, (1, *size, 5), how, [made.listed(*size)])

    return make


def backwards() -> Written:
    made = Written((1, 8))
    ends = [made.listed(0, 7), made.listed(1, 0), made.listed(1, -1)]
    return made.op(OPERATOR.STRIDED_SLICE, (1, 7), options("StridedSlice"), ends)


def too_far() -> Written:
    made = Written((1, 8))
    return made.op(OPERATOR.SLICE, (1, 4), options("Slice"), [made.listed(0, 6), made.listed(1, 4)])


def uneven() -> Written:
    made = Written((1, 3, 2, 5))
    inputs = [made.numbers(3), made.last]
    parts = made.several(OPERATOR.SPLIT, [(1, 3, 2, 2)] * 2, inputs, options("Split", numSplits=2))
    return made.joined(parts, (1, 3, 2, 4), 3)


def padded_batch() -> Written:
    made = Written((1, 8))
    amounts = made.file.constant(np.array([[1, 0], [0, 0]], np.int32))
    return made.op(OPERATOR.PAD, (1, 8), options("Pad"), [amounts])


def depth_to_space() -> Written:
    made = Written((1, 3, 2, 12))
    return made.op(OPERATOR.DEPTH_TO_SPACE, (1, 6, 4, 3), options("DepthToSpace", blockSize=2))


def space_to_depth() -> Written:
    made = Written((1, 6, 4, 3))
    return made.op(OPERATOR.SPACE_TO_DEPTH, (1, 3, 2, 12), options("SpaceToDepth", blockSize=2))


def dense_on_rows() -> Written:
    chance, made = np.random.default_rng(0), Written((1, 5, 12))
    weights = made.file.constant(chance.integers(-127, 128, (7, 12)).astype(np.int8), np.array([0.004]))
    bias = made.file.constant(chance.integers(-999, 999, 7).astype(np.int32), np.array([0.0002]))
    how = options("FullyConnected", keepNumDims=True)
    return made.op(OPERATOR.FULLY_CONNECTED, (1, 5, 7), how, [weights, bias], scale=0.07, zero=-20, version=4)


def transposed(padding: int, kernel: int, stride: int, size: tuple[int, int]) -> Callable[[], Written]:
    """As Keras' Conv2DTranspose is written."""

    def make() -> Written:
        chance, made = np.random.default_rng(0), Written((1, 3, 4, 5))
        weights = made.file.constant(
            chance.integers(-127, 128, (2, kernel, kernel, 5)).astype(np.int8), np.array([0.004, 0.003])
        )
        bias = made.file.constant(
            chance.integers(-99, 99, 2).astype(np.int32), SCALE * np.array([0.004, 0.003])
        )
        how = options("TransposeConv", padding=padding, strideH=stride, strideW=stride)
        shape = made.listed(1, *size, 2)
        return made.op(
            OPERATOR.TRANSPOSE_CONV, (1, *size, 2), how, [bias], [shape, weights], scale=0.08, version=3
        )

    return make


def flattened() -> Written:
    """Keras 2: the shape of Flatten worked out from the batch while the model runs."""
    made = Written((1, 3, 4, 2))
    graph = made.file.graph
    shape, first, packed = (_int32(made, size) for size in ((4,), (), (2,)))
    made.file.operator(OPERATOR.SHAPE, 1, [made.last], shape, options("Shape", outType=2))
    ends = [made.listed(0), made.listed(1), made.listed(1)]
    made.file.operator(
        OPERATOR.STRIDED_SLICE, 1, [shape, *ends], first, options("StridedSlice", shrinkAxisMask=1)
    )
    made.file.operator(OPERATOR.PACK, 1, [first, made.numbers(24)], packed, options("Pack", valuesCount=2))
    made.op(OPERATOR.RESHAPE, (1, 24), options("Reshape"), [packed], version=1)
    assert len(graph.operators) == 4
    return made


def _int32(made: Written, shape: Shape) -> int:
    index = made.file.tensor("", shape, 1.0, 0)
    tensor = made.file.graph.tensors[index]
    tensor.type, tensor.quantization = schema.TensorType.INT32, None
    return index


READY: dict[str, Callable[[], Written]] = {
    "rescaling": rescaled,
    "a constant a channel": normalised,
    "split": split_evenly,
    "split_v": split_by_sizes,
    "unpack and pack": unpacked,
    "strided slice and slice": sliced,
    "mean of a picture, kept": mean((1, 4, 5, 6), (1, 2), (1, 1, 1, 6)),
    "mean of a sequence": mean((1, 9, 6), (1,), (1, 6)),
    "mean of one axis": mean((1, 1, 9, 6), (2,), (1, 1, 6)),
    "mean of all": mean((1, 4, 5, 6), (1, 2, 3), (1, 1, 1, 1)),
    "mean at one scale": mean((1, 9, 6), (1,), (1, 6), SCALE),
    "mean of channels": mean((1, 4, 5, 6), (-1,), (1, 4, 5)),
    "mean of rows, kept": mean((1, 4, 5, 6), (2,), (1, 4, 1, 6)),
    "mean of height and channels": mean((1, 4, 5, 6), (3, 1), (1, 5)),
    "mean of a batch of 1 and channels": mean((1, 4, 5, 6), (0, 3), (1, 4, 5, 1)),
    "largest of a picture": largest,
    "rows of a dense layer": rows_of_a_dense_layer,
    "squeezed": squeezed,
    "softmax of one number": softmax_of_one,
    "a dense layer without options": dense_without_options,
    "constants beside an input": with_constants_beside,
    "an answer that is always the same": of_constants_alone,
    "padding of any axis": causal,
    "upsampling": resized((6, 12)),
    "depth to space": depth_to_space,
    "space to depth": space_to_depth,
    "a dense layer on rows": dense_on_rows,
    "a transposed convolution": transposed(schema.Padding.SAME, 3, 2, (6, 8)),
    "a transposed convolution, all of it": transposed(schema.Padding.VALID, 4, 3, (10, 13)),
    "a transposed convolution of blocks": transposed(schema.Padding.VALID, 2, 2, (6, 8)),
    "a transposed convolution with gaps": transposed(schema.Padding.VALID, 2, 3, (8, 11)),
    "a transposed convolution of stride 1": transposed(schema.Padding.SAME, 3, 1, (3, 4)),
    "a flattened batch": flattened,
}
