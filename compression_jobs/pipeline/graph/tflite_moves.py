"""Operators of a `.tflite` that only move bytes: slices, splits, stacks, reshapes, transposes, padding."""

from collections.abc import Callable
from typing import Any

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.tflite_importer import Importer, UnsupportedError
from compression_jobs.pipeline.graph.tflite_reading import Node

Shape = tuple[int, ...]
MOST_TIMES = 32  # a plan has a move for each


def reshaped(importer: Importer, node: Node, source: q.Tensor, shape: Shape, what: str) -> q.Tensor:
    """The same bytes under another shape, if it is another one."""
    if source.shape == shape:
        return source
    name = f"{node.label}/{what}"
    made = q.Tensor(name, shape, source.scale, source.zero_point)
    importer.graph.tensors[name] = made
    importer.add(q.Reshape(name, (source.name,), name))
    return made


def give(importer: Importer, node: Node, made: q.Tensor, target: q.Tensor) -> None:
    """What was made as the result of `node`: the same bytes under its shape, if it is another tensor."""
    if made is not target:
        importer.add(q.Reshape(f"{node.label}/shape", (made.name,), target.name))


def _reshape(importer: Importer, node: Node) -> None:
    source, target = importer.source(node), importer.target(node)
    importer.add(q.Reshape(node.label, (source.name,), target.name))


def _transpose(importer: Importer, node: Node) -> None:
    source, order = importer.source(node), tuple(importer.numbers(node, 1))
    importer.add(q.Transpose(node.label, (source.name,), importer.target(node).name, order))


def _pad(importer: Importer, node: Node) -> None:
    """That of height and width is put off: a convolution or maximum behind it may take it over."""
    source, amounts = importer.source(node), importer.numbers(node, 1)
    if len(amounts) != 2 * len(source.shape) or any(amounts[:2]) or min(amounts) < 0:
        raise UnsupportedError(
            "only padding by constant amounts, and not of the batch, has an int8 form here"
        )
    if len(node.outputs) != 1:
        raise UnsupportedError(f"it has {len(node.outputs)} results")
    value = source.zero_point
    if node.kind == "PADV2":
        fill = importer.stored(node, 2)
        if fill is None or fill.values is None or fill.dtype != "int8" or fill.values.size != 1:
            raise UnsupportedError("it pads with a value that is computed")
        value = int(fill.values.ravel()[0])
    if len(source.shape) == 4 and not any(amounts[6:]):
        around = amounts[2], amounts[4], amounts[3], amounts[5]
        importer.pads[node.outputs[0]] = (node.inputs[0], around, value)
    elif value == source.zero_point:
        _pad_each_axis(importer, node, source, amounts)
    else:
        raise UnsupportedError(
            "only height and width of a picture can be padded with something else than zeros"
        )


def _pad_each_axis(importer: Importer, node: Node, source: q.Tensor, amounts: list[int]) -> None:
    """One axis after the other, each as the width of a picture."""
    target, shape = importer.target(node), list(source.shape)
    for axis in range(1, len(shape)):
        before, after = amounts[2 * axis : 2 * axis + 2]
        if before or after:
            rows, channels = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
            picture = (1, rows, shape[axis], channels)
            flat = reshaped(importer, node, source, picture, f"axis {axis}")
            shape[axis] += before + after
            source = importer.between(target, (1, rows, shape[axis], channels), f"axis {axis} padded")
            importer.add(q.Pad(source.name, (flat.name,), source.name, (0, before, 0, after)))
    give(importer, node, source, target)


def _enlarge(importer: Importer, node: Node) -> None:
    source, size = importer.source(node), importer.numbers(node, 1)
    if len(source.shape) != 4 or len(size) != 2 or node.options.AlignCorners():
        raise UnsupportedError("only pictures whose corners are not aligned can be resized here")
    factors = size[0] // source.shape[1], size[1] // source.shape[2]
    exact = [source.shape[1] * factors[0], source.shape[2] * factors[1]] == size
    if not exact or max(factors) > MOST_TIMES:
        raise UnsupportedError(
            f"only a whole number of times as high and as wide, up to {MOST_TIMES}, has an int8 form here"
        )
    importer.add(q.Enlarge(node.label, (source.name,), importer.target(node).name, factors))


def _depth_to_space(importer: Importer, node: Node) -> None:
    """Blocks of channels spread over height and width, or (SPACE_TO_DEPTH) the other way round."""
    source, target, block = importer.source(node), importer.target(node), node.options.BlockSize()
    spread = node.kind == "DEPTH_TO_SPACE"
    small = source.shape if spread else target.shape
    if len(source.shape) != 4 or len(target.shape) != 4 or block < 1 or small[3] % (block * block):
        raise UnsupportedError("its blocks do not fit its channels")
    _, height, width, channels = small
    apart, together = (
        (1, height, width, block, channels // block),
        (1, height, block, width, channels // block),
    )
    before, after = (apart, together) if spread else (together, apart)
    flat = reshaped(importer, node, source, before, "blocks")
    moved = importer.between(target, after, "moved")
    importer.add(q.Transpose(node.label, (flat.name,), moved.name, (0, 1, 3, 2, 4)))
    give(importer, node, moved, target)


# --- slices ----------------------------------------------------------------------------------------


def _strided_slice(importer: Importer, node: Node) -> None:
    source, options = importer.source(node), node.options
    if options.EllipsisMask() or options.NewAxisMask():
        raise UnsupportedError("an ellipsis or a new axis has no int8 form here")
    given = [importer.numbers(node, position) for position in (1, 2, 3)]
    if {len(numbers) for numbers in given} != {len(source.shape)}:
        raise UnsupportedError("it does not say for each axis where it begins, ends and steps")
    ranges = [
        _range(size, axis, options, *numbers)
        for axis, (size, *numbers) in enumerate(zip(source.shape, *given, strict=True))
    ]
    _take(importer, node, source, importer.target(node), ranges)


def _range(size: int, axis: int, options: Any, begin: int, end: int, step: int) -> range:
    """The elements of one axis that are taken."""
    if step < 1:
        raise UnsupportedError("a step that goes backwards has no int8 form here")
    if options.ShrinkAxisMask() >> axis & 1:
        begin = begin + size if begin < 0 else begin
        return range(begin, begin + 1)
    whole = slice(
        None if options.BeginMask() >> axis & 1 else begin,
        None if options.EndMask() >> axis & 1 else (begin + end if options.Offset() else end),
        step,
    )
    return range(size)[whole]


def _slice(importer: Importer, node: Node) -> None:
    source = importer.source(node)
    begins, sizes = importer.numbers(node, 1), importer.numbers(node, 2)
    if not len(begins) == len(sizes) == len(source.shape):
        raise UnsupportedError("it does not say for each axis where it begins and how long it is")
    ranges = [
        range(begin, whole if size == -1 else begin + size)
        for begin, size, whole in zip(begins, sizes, source.shape, strict=True)
    ]
    _take(importer, node, source, importer.target(node), ranges)


def _take(importer: Importer, node: Node, source: q.Tensor, target: q.Tensor, ranges: list[range]) -> None:
    shape = tuple(len(each) for each in ranges)
    if min(shape) < 1 or int(np.prod(shape)) != target.size:
        raise UnsupportedError(f"it takes {list(shape)} of {list(source.shape)}, its result says otherwise")
    taken = target if target.shape == shape else importer.between(target, shape, "taken")
    starts = tuple(each.start for each in ranges)
    steps = tuple(each.step if len(each) > 1 else 1 for each in ranges)
    importer.add(q.Slice(node.label, (source.name,), taken.name, starts, steps))
    give(importer, node, taken, target)


def _split(importer: Importer, node: Node) -> None:
    """SPLIT(axis, value) into equal parts, SPLIT_V(value, sizes, axis) into parts of any size."""
    even = node.kind == "SPLIT"
    source, axes = importer.source(node, 1 if even else 0), importer.numbers(node, 0 if even else 2)
    rank, parts = len(source.shape), len(node.outputs)
    if len(axes) != 1 or not -rank <= axes[0] < rank or not parts:
        raise UnsupportedError("it does not name one axis of its input")
    axis = axes[0] % rank
    sizes = [source.shape[axis] // parts] * parts if even else importer.numbers(node, 1)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = source.shape[axis] - sum(sizes) - 1
    if len(sizes) != parts or sum(sizes) != source.shape[axis] or min(sizes) < 1:
        raise UnsupportedError(f"its {parts} parts do not make up axis {axis}")
    _cut(importer, node, source, axis, sizes)


def _unpack(importer: Importer, node: Node) -> None:
    source = importer.source(node)
    rank = len(source.shape)
    axis = node.options.Axis()
    if not -rank <= axis < rank or source.shape[axis] != len(node.outputs):
        raise UnsupportedError(f"it has {len(node.outputs)} results, its axis another length")
    _cut(importer, node, source, axis % rank, [1] * len(node.outputs))


def _cut(importer: Importer, node: Node, source: q.Tensor, axis: int, sizes: list[int]) -> None:
    at = 0
    for place, size in enumerate(sizes):
        ranges = [range(whole) for whole in source.shape]
        ranges[axis] = range(at, at + size)
        part = Node(node.kind, f"{node.label}/{place}", node.inputs, [node.outputs[place]], node.options)
        _take(importer, part, source, importer.target(part), ranges)
        at += size


def _pack(importer: Importer, node: Node) -> None:
    """Tensors of one shape along an axis of its own."""
    target, parts = importer.target(node), []
    rank = len(target.shape)
    axis = node.options.Axis()
    if not -rank <= axis < rank or axis % rank == 0:
        raise UnsupportedError("it would make another batch than 1")
    shape = (*target.shape[: axis % rank], 1, *target.shape[axis % rank + 1 :])
    for place in range(len(node.inputs)):
        source = importer.source(node, place)
        if source.size != int(np.prod(shape)):
            raise UnsupportedError("its inputs do not make up its result")
        parts.append(reshaped(importer, node, source, shape, f"{place}").name)
    importer.add(q.Concat(node.label, tuple(parts), target.name, axis % rank))


HANDLERS: dict[str, Callable[[Importer, Node], None]] = {
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape),
    "TRANSPOSE": _transpose,
    "PAD": _pad,
    "PADV2": _pad,
    "RESIZE_NEAREST_NEIGHBOR": _enlarge,
    **dict.fromkeys(("DEPTH_TO_SPACE", "SPACE_TO_DEPTH"), _depth_to_space),
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "UNPACK": _unpack,
    "PACK": _pack,
}
