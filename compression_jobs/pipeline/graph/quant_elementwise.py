"""Operators of the QuantGraph that treat values one by one or only move them: product, table, concatenation.

A table is any function of one int8 value (logistic, tanh, leaky relu, hard swish, a change of scale).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_arithmetic import (
    EXACT_BOUND,
    QMAX,
    QMIN,
    multiply,
    quantize_multipliers,
)


@dataclass(frozen=True)
class Mul(q.Op):
    """Product of two tensors of the same shape, to a scale of its own."""

    activation: q.Activation


@dataclass(frozen=True)
class Lookup(q.Op):
    """A function of single values, as its 256 results for -128 to 127."""

    values: q.Int8Array


@dataclass(frozen=True)
class Concat(q.Op):
    """Tensors one after the other along an axis; all share the scale of the output."""

    axis: int


def product_multiplier(graph: q.QuantGraph, op: Mul) -> tuple[int, int]:
    """Multiplier and shift of a product."""
    a, b = graph.tensor_of(op), graph.tensor_of(op, 1)
    multiplier, shift = quantize_multipliers(np.array(a.scale * b.scale / graph.output_of(op).scale))
    return int(multiplier), int(shift)


def rescaling(source: q.Tensor, target: q.Tensor) -> q.Int8Array:
    """The table that brings values of `source` to the scale of `target` (tflite: Requantize)."""
    multiplier, shift = quantize_multipliers(np.array(source.scale / target.scale))
    scaled = multiply(np.arange(QMIN, QMAX + 1) - source.zero_point, multiplier, shift) + target.zero_point
    return np.clip(scaled, QMIN, QMAX).astype(np.int8)


def problems(graph: q.QuantGraph, op: q.Op) -> Iterator[str]:
    """What would make runtimes disagree about `op`."""
    if isinstance(op, Concat) and any(
        not graph.tensors[name].same_scale(graph.output_of(op)) for name in op.inputs
    ):
        yield f"{op.name}: inputs and output must share their scale"
    if isinstance(op, Mul) and 255 * 255 * 2.0 ** product_multiplier(graph, op)[1] >= EXACT_BOUND:
        yield f"{op.name}: the product's scale is too small for its inputs"


def _mul(graph: q.QuantGraph, op: Mul, inputs: list[q.Int8Array]) -> Any:
    a, b = (
        stored.astype(np.int64) - graph.tensor_of(op, index).zero_point for index, stored in enumerate(inputs)
    )
    scaled = multiply(a * b, *product_multiplier(graph, op)) + graph.output_of(op).zero_point
    return np.clip(scaled, *graph.bounds(op, op.activation))


def _lookup(graph: q.QuantGraph, op: Lookup, inputs: list[q.Int8Array]) -> Any:
    return op.values[inputs[0].astype(np.int64) - QMIN]


def _concat(graph: q.QuantGraph, op: Concat, inputs: list[q.Int8Array]) -> Any:
    return np.concatenate(inputs, axis=op.axis)


KERNELS: dict[type[q.Op], Callable[..., Any]] = {Mul: _mul, Lookup: _lookup, Concat: _concat}
