"""Operators of ONNX that only move numbers: transposing, slicing, and enlarging by the nearest one."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.graph import attributes
from compression_jobs.pipeline.graph.quant_builder import AXES, Builder, UnsupportedError, as_picture, name_of

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = AXES["onnx"], AXES["channels_last"]
# How Resize finds the nearest element, where whole factors repeat each one.
REPEATS = {("asymmetric", "floor")} | {
    (place, rounding)
    for place in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    for rounding in ("round_prefer_floor", "round_prefer_ceil")
}


def _transpose(builder: Builder, node: NodeProto) -> None:
    source, result = node.input[0], node.output[0]
    rank = len(builder.shape(source))
    order = tuple(attributes(node).get("perm", range(rank)[::-1]))
    if order[0] != 0:
        raise UnsupportedError("it moves the batch dimension, which has no int8 form")
    leaves = result in builder.graph.output_names
    # Pictures lie channels last here anyway: between the two orders nothing has to be moved.
    if order == TO_CHANNELS_FIRST and not leaves:
        builder.held[result, "channels_last"] = builder.tensor(source, "onnx").name
    elif order == TO_CHANNELS_LAST and not leaves:
        builder.held[result, "onnx"] = builder.tensor(source, "channels_last").name
    elif order == (0, 2, 1):
        _turn_signal(builder, node)
    else:
        given = builder.tensor(source, "onnx")
        target = builder.define(result, "onnx", (given.scale, given.zero_point))
        builder.add(q.Transpose(name_of(node), (given.name,), target.name, order))


def _turn_signal(builder: Builder, node: NodeProto) -> None:
    """The same for signals, which are pictures of height 1."""
    source, result = node.input[0], node.output[0]
    came_last = (source, "channels_last") in builder.held and (source, "onnx") not in builder.held
    given = builder.tensor(source, "channels_last" if came_last else "onnx")
    target = builder.define(result, "onnx" if came_last else "channels_last", (given.scale, given.zero_point))
    builder.add(q.Reshape(name_of(node), (given.name,), target.name))


def _slice(builder: Builder, node: NodeProto) -> None:
    source, result = node.input[0], node.output[0]
    shape = builder.shape(source)
    begins, steps = _window(builder, node, shape)
    order = builder.order_for(source)
    given = builder.tensor(source, order)
    target = builder.define(result, order, (given.scale, given.zero_point))
    if order == "channels_last":
        begins, steps = (
            [each[axis] for axis in TO_CHANNELS_LAST] for each in (_four(begins, 0), _four(steps, 1))
        )
    builder.add(q.Slice(name_of(node), (given.name,), target.name, tuple(begins), tuple(steps)))


def _four(values: list[int], between: int) -> list[int]:
    """One number for each axis of a picture; a signal has height 1."""
    return [*values[:2], between, values[2]] if len(values) == 3 else values


def _window(builder: Builder, node: NodeProto, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """First place and step on each axis; how many are taken says the shape of the result."""
    given: list[Any] = [builder.graph.constant(node, place) for place in range(1, len(node.input))]
    if any(value is None for value, name in zip(given, node.input[1:], strict=True) if name):
        raise UnsupportedError("a slice whose ends are computed has no int8 form")
    starts = [int(value) for value in given[0]]
    axes = range(len(starts)) if len(given) < 3 or given[2] is None else [int(axis) for axis in given[2]]
    strides = [1] * len(starts) if len(given) < 4 or given[3] is None else [int(step) for step in given[3]]
    begins, steps = [0] * len(shape), [1] * len(shape)
    for axis, start, step in zip(axes, starts, strides, strict=True):
        size = shape[axis]
        begins[axis] = min(max(start + size if start < 0 else start, 0), size)
        steps[axis] = step
    if min(steps) < 1 or begins[0] or builder.shape(node.output[0])[0] != 1:
        raise UnsupportedError("a slice backwards or of the batch has no int8 form")
    return begins, steps


def _resize(builder: Builder, node: NodeProto) -> None:
    options = attributes(node)
    shapes = [as_picture(builder.shape(name)) for name in (node.input[0], node.output[0])]
    if len(shapes[0]) != 4 or shapes[0][:2] != shapes[1][:2]:
        raise UnsupportedError("only height and width can be enlarged in int8")
    how = (
        options.get("coordinate_transformation_mode", "half_pixel"),
        options.get("nearest_mode", "round_prefer_floor"),
    )
    ratios = np.array(shapes[1][2:]) / np.array(shapes[0][2:])
    if options.get("mode", "nearest") != "nearest" or how not in REPEATS or (ratios % 1).any():
        raise UnsupportedError("only enlarging by whole factors to the nearest element has an int8 form")
    given = builder.tensor(node.input[0], "channels_last")
    target = builder.define(node.output[0], "channels_last", (given.scale, given.zero_point))
    height, width = (int(ratio) for ratio in ratios)
    builder.add(q.Enlarge(name_of(node), (given.name,), target.name, (height, width)))


HANDLERS: dict[str, Callable[[Builder, NodeProto], None]] = {
    "Transpose": _transpose,
    "Slice": _slice,
    "Resize": _resize,
}
