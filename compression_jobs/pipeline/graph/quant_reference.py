"""Runs a QuantGraph on NumPy arrays with TensorFlow Lite's integer arithmetic, operator by operator.

Any number of rows may be given at once; each is computed as the batch of one that devices run.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from compression_jobs.pipeline.graph import quant_islands
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_arithmetic import (
    QMAX,
    QMIN,
    Int64Array,
    divide_by_power_of_two,
    doubling_high_multiply,
    mean_multiplier,
    multiply,
    quantize_multipliers,
)
from compression_jobs.pipeline.graph.quant_softmax import softmax
from compression_jobs.pipeline.graph.quant_tables import table
from compression_jobs.pipeline.graph.running import open_session

Int8Array = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.floating[Any]]
ADD_LEFT_SHIFT = 20


def quantize(values: FloatArray, tensor: q.Tensor) -> Int8Array:
    """Real values as stored values of `tensor`: nearest, halves to even (as ONNX QuantizeLinear)."""
    scaled = np.rint(np.asarray(values, dtype=np.float32) / np.float32(tensor.scale))
    return np.asarray(np.clip(scaled + tensor.zero_point, QMIN, QMAX), dtype=np.int8)


def dequantize(values: Int8Array, tensor: q.Tensor) -> npt.NDArray[np.float32]:
    """Stored values of `tensor` as reals."""
    return ((values.astype(np.int32) - tensor.zero_point) * np.float32(tensor.scale)).astype(np.float32)


def run(graph: q.QuantGraph, inputs: dict[str, Int8Array]) -> dict[str, Int8Array]:
    """All tensors of `graph` for stored `inputs` of shape (rows, *tensor shape without its batch).

    The rows of a graph that keeps a state are runs one after the other, the first one from its first state.
    """
    if not graph.states:
        return _run(graph, inputs)
    kept = {state.name: state.first for state in graph.states}
    runs = []
    for row in range(len(inputs[graph.inputs[0]])):
        values = _run(graph, {name: given[row : row + 1] for name, given in inputs.items()} | kept)
        kept = {state.name: values[state.next] for state in graph.states}
        runs.append(values)
    return {name: np.concatenate([values[name] for values in runs]) for name in runs[0]}


def _run(graph: q.QuantGraph, inputs: dict[str, Int8Array]) -> dict[str, Int8Array]:
    values = dict(inputs)
    rows = len(inputs[graph.inputs[0]])
    for op in graph.ops:
        result = np.asarray(KERNELS[type(op)](graph, op, [values[name] for name in op.inputs]), dtype=np.int8)
        values[op.output] = np.broadcast_to(result, (rows, *result.shape[1:]))  # a constant is one for all
    return values


def run_float(graph: q.QuantGraph, rows: FloatArray) -> npt.NDArray[np.float32]:
    """Real outputs for real `rows` of a graph with one input and one output."""
    source, target = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    stored = quantize(rows.reshape(len(rows), *source.shape[1:]), source)
    return dequantize(run(graph, {source.name: stored})[target.name], target)


# --- kernels -------------------------------------------------------------------------------------


def _conv(graph: q.QuantGraph, op: q.Conv, inputs: list[Int8Array]) -> Int64Array:
    out_channels, height, width, _ = op.weights.values.shape
    windows = _windows(graph, op, inputs[0], (height, width))  # rows, oh, ow, kh, kw, channels
    # Integers below 2^53 are exact in float64, and its matrix product is many times faster.
    matrix = op.weights.values.reshape(out_channels, -1).astype(np.float64).T
    sums = windows.reshape(*windows.shape[:3], -1).astype(np.float64) @ matrix
    return _requantize(graph, op, sums.astype(np.int64))


def _depthwise(graph: q.QuantGraph, op: q.DepthwiseConv, inputs: list[Int8Array]) -> Int64Array:
    _, height, width, out_channels = op.weights.values.shape
    windows = _windows(graph, op, inputs[0], (height, width))
    multiplier = out_channels // windows.shape[-1]
    windows = np.repeat(windows, multiplier, axis=-1)
    sums = np.einsum("nhwabc,abc->nhwc", windows.astype(np.int64), op.weights.values[0].astype(np.int64))
    return _requantize(graph, op, sums)


def _fully_connected(graph: q.QuantGraph, op: q.FullyConnected, inputs: list[Int8Array]) -> Int64Array:
    centred = inputs[0].astype(np.float64) - graph.tensor_of(op).zero_point
    sums = centred @ op.weights.values.astype(np.float64).T
    return _requantize(graph, op, sums.astype(np.int64))


def _requantize(graph: q.QuantGraph, op: q.Weighted, sums: Int64Array) -> Int64Array:
    multipliers, shifts = graph.requantization(op)
    scaled = multiply(sums + op.weights.bias, multipliers, shifts)
    return _clip(scaled + graph.output_of(op).zero_point, graph.bounds(op, op.activation))


def _add(graph: q.QuantGraph, op: q.Add | q.Sub, inputs: list[Int8Array]) -> Int64Array:
    sources = [graph.tensor_of(op, index) for index in range(2)]
    target = graph.output_of(op)
    common = 2 * max(source.scale for source in sources)
    first, second = (
        _scale_down((stored.astype(np.int64) - source.zero_point) << ADD_LEFT_SHIFT, source.scale / common)
        for source, stored in zip(sources, inputs, strict=True)
    )
    total = first - second if isinstance(op, q.Sub) else first + second
    scaled = _scale_down(total, common / ((1 << ADD_LEFT_SHIFT) * target.scale))
    return _clip(scaled + target.zero_point, graph.bounds(op, op.activation))


def _mul(graph: q.QuantGraph, op: q.Mul, inputs: list[Int8Array]) -> Int64Array:
    sources, target = [graph.tensor_of(op, index) for index in range(2)], graph.output_of(op)
    first, second = (
        stored.astype(np.int64) - source.zero_point for source, stored in zip(sources, inputs, strict=True)
    )
    scaled = multiply(first * second, *graph.product_multiplier(op))
    return _clip(scaled + target.zero_point, graph.bounds(op, op.activation))


def _scale_down(values: Int64Array, real: float) -> Int64Array:
    """MultiplyByQuantizedMultiplierSmallerThanOneExp."""
    multiplier, shift = quantize_multipliers(np.array(real))
    return divide_by_power_of_two(doubling_high_multiply(values, multiplier), -shift.astype(np.int64))


def _pool(graph: q.QuantGraph, op: q.Pool, inputs: list[Int8Array]) -> Int64Array:
    stored = inputs[0].astype(np.int64)
    if op.mode == "max":
        lowest = _padded(stored, op.padding, QMIN)
        return np.asarray(_sliding(lowest, op.kernel, op.stride, (1, 1)).max(axis=(3, 4)))
    sums = _sliding(_padded(stored, op.padding, 0), op.kernel, op.stride, (1, 1)).sum(axis=(3, 4))
    ones = _padded(np.ones_like(stored), op.padding, 0)
    counts = _sliding(ones, op.kernel, op.stride, (1, 1)).sum(axis=(3, 4))
    return _divide_rounding(sums, counts)


def _mean(graph: q.QuantGraph, op: q.Mean, inputs: list[Int8Array]) -> Int64Array:
    source, target = graph.tensor_of(op), graph.output_of(op)
    sums = (inputs[0].astype(np.int64) - source.zero_point).sum(axis=(1, 2))
    means = multiply(
        sums, *mean_multiplier(source.scale / target.scale, inputs[0].shape[1] * inputs[0].shape[2])
    )
    shape = (len(sums), *target.shape[1:])
    return _clip(means + target.zero_point, (QMIN, QMAX)).reshape(shape)


def _divide_rounding(sums: Int64Array, counts: npt.NDArray[np.int64]) -> Int64Array:
    """C's division of `sum ± count / 2` by count: nearest, halves away from zero."""
    magnitude = (np.abs(sums) + counts // 2) // counts
    return np.asarray(np.where(sums < 0, -magnitude, magnitude))


def _clamp(graph: q.QuantGraph, op: q.Clamp, inputs: list[Int8Array]) -> Int64Array:
    return _clip(inputs[0].astype(np.int64), graph.bounds(op, op.activation))


def _pad(graph: q.QuantGraph, op: q.Pad, inputs: list[Int8Array]) -> Int64Array:
    return _padded(inputs[0].astype(np.int64), op.padding, graph.tensor_of(op).zero_point)


def _reshape(graph: q.QuantGraph, op: q.Reshape, inputs: list[Int8Array]) -> Int8Array:
    return inputs[0].reshape(len(inputs[0]), *graph.output_of(op).shape[1:])


def _transpose(graph: q.QuantGraph, op: q.Transpose, inputs: list[Int8Array]) -> Int8Array:
    return inputs[0].transpose(op.order)


def _enlarge(graph: q.QuantGraph, op: q.Enlarge, inputs: list[Int8Array]) -> Int8Array:
    height, width = op.factors
    return inputs[0].repeat(height, axis=1).repeat(width, axis=2)


def _constant(graph: q.QuantGraph, op: q.Constant, inputs: list[Int8Array]) -> Int8Array:
    return op.values


def _slice(graph: q.QuantGraph, op: q.Slice, inputs: list[Int8Array]) -> Int8Array:
    sizes = graph.output_of(op).shape
    places = [
        slice(start, start + (size - 1) * step + 1, step)
        for start, step, size in zip(op.starts, op.steps, sizes, strict=True)
    ]
    return inputs[0][:, *places[1:]]


def _softmax(graph: q.QuantGraph, op: q.Softmax, inputs: list[Int8Array]) -> Int64Array:
    source = graph.tensor_of(op)
    lines = inputs[0].reshape(-1, source.shape[-1])  # of a tensor of one axis, each row is one
    return softmax(lines, source.scale).reshape(inputs[0].shape)


def _concat(graph: q.QuantGraph, op: q.Concat, inputs: list[Int8Array]) -> Int8Array:
    return np.concatenate(inputs, axis=op.axis)


def _look_up(graph: q.QuantGraph, op: q.LookUp, inputs: list[Int8Array]) -> Int8Array:
    answers = table(op, graph.tensor_of(op), graph.output_of(op))
    return np.asarray(answers[inputs[0].astype(np.int64) - QMIN])


# --- windows -------------------------------------------------------------------------------------


def _windows(
    graph: q.QuantGraph, op: q.Conv | q.DepthwiseConv, stored: Int8Array, kernel: q.Pair
) -> Int64Array:
    centred = stored.astype(np.int64) - graph.tensor_of(op).zero_point
    return _sliding(_padded(centred, op.padding, 0), kernel, op.stride, op.dilation)


def _padded(values: Int64Array, padding: q.Padding, fill: int) -> Int64Array:
    top, left, bottom, right = padding
    return np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)


def _sliding(values: Int64Array, kernel: q.Pair, stride: q.Pair, dilation: q.Pair) -> Int64Array:
    """Windows as (rows, out height, out width, kernel height, kernel width, channels)."""
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(values, reach, axis=(1, 2))
    picked = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    return np.asarray(picked.transpose(0, 1, 2, 4, 5, 3))


def _clip(values: Int64Array, bounds: q.Pair) -> Int64Array:
    return np.clip(values, *bounds)


def _island(graph: q.QuantGraph, op: q.Island, inputs: list[Int8Array]) -> Int8Array:
    """onnxruntime on real numbers, row by row."""
    session = open_session(quant_islands.model_of(graph, op))
    real = [dequantize(stored, graph.tensor_of(op, place)) for place, stored in enumerate(inputs)]
    rows = [
        session.run(None, dict(zip(op.names, (values[row : row + 1] for values in real), strict=True)))[0]
        for row in range(len(inputs[0]))
    ]
    return quantize(np.concatenate(rows), graph.output_of(op))


KERNELS: dict[type[q.Op], Callable[..., Any]] = {
    q.Conv: _conv,
    q.DepthwiseConv: _depthwise,
    q.FullyConnected: _fully_connected,
    q.Add: _add,
    q.Sub: _add,
    q.Mul: _mul,
    q.Concat: _concat,
    q.LookUp: _look_up,
    q.Pool: _pool,
    q.Mean: _mean,
    q.Clamp: _clamp,
    q.Pad: _pad,
    q.Reshape: _reshape,
    q.Transpose: _transpose,
    q.Slice: _slice,
    q.Enlarge: _enlarge,
    q.Constant: _constant,
    q.Softmax: _softmax,
    q.Island: _island,
}
