"""Features of very different sizes brought to one scale in front of the model, because an int8 input has only one.

A first layer takes the inverse factors into its weights, so that the model computes what it did. What stands in
front then is Sub and Mul in ONNX, and the `normalisation` of the signature for runtimes whose inputs are int8.
Source: Xiao et al. 2023, "SmoothQuant" (difficulty moved from activations to weights), at the input and only where the
first layer's own answers on calibration rows come out better for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.graph.graph import Array, Graph, attributes, copy_of
from compression_jobs.pipeline.graph.quant_ranges import affine
from compression_jobs.pipeline.graph.quant_weights import WEIGHT_MAX
from compression_jobs.pipeline.graph.rewrites import opset
from compression_jobs.pipeline.graph.rewrites.layers import AFFINE, scale_and_shift
from compression_jobs.pipeline.graph.running import open_session, run_once

UNEVEN = 8.0  # times the smallest factor of a scaler that its largest must have
LOST = 32.0  # times the smallest feature's size that the reach of an int8 input must be
GAIN = 4.0  # times less squared error that the first layer must make
REACH = 6.0  # deviations that a value has at most; features with longer tails are scaled by their longest
MOST_FEATURES = 256  # the signature lists them, and boards hold it in memory
MOST_ROWS = 256
FEWEST_ROWS = 8

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Normalisation:
    """`(x - mean) / std` along one axis of the input (rows first), in float32."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    axis: int

    def apply(self, rows: Array) -> Array:
        """The rows (n, ...) as the model behind it takes them; float32."""
        mean, std = (self._shaped(values, rows.ndim) for values in (self.mean, self.std))
        return np.asarray((rows.astype(np.float32) - mean) / std, np.float32)

    def as_dict(self) -> dict[str, Any]:
        """What the signature says."""
        return {"mean": list(self.mean), "std": list(self.std), "axis": self.axis}

    def in_front_of(self, model: bytes) -> bytes:
        """The ONNX file with this done to its input first; its input keeps name and shape."""
        proto = onnx.ModelProto.FromString(model)
        graph = proto.graph
        port = next(value for value in graph.input if value.name not in {t.name for t in graph.initializer})
        name, rank = port.name, len(port.type.tensor_type.shape.dim)
        ready = f"{name}/normalised"
        for node in graph.node:
            node.input[:] = [ready if each == name else each for each in node.input]
        gain = 1 / self._shaped(self.std, rank)
        constants = {f"{name}/mean": self._shaped(self.mean, rank), f"{name}/gain": gain.astype(np.float32)}
        graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
        first = [
            helper.make_node("Sub", [name, f"{name}/mean"], [f"{name}/centred"]),
            helper.make_node("Mul", [f"{name}/centred", f"{name}/gain"], [ready]),
        ]
        nodes = [copy_of(node) for node in graph.node]
        del graph.node[:]
        graph.node.extend([*first, *nodes])
        return bytes(proto.SerializeToString(deterministic=True))

    def _shaped(self, values: Sequence[float], rank: int) -> Array:
        shape = [1] * rank
        shape[self.axis] = len(values)
        return np.array(values, np.float32).reshape(shape)


def evened(graph: Graph, rows: Array) -> tuple[Graph, Normalisation] | None:
    """The model for features of one size and what brings them there; None where int8 loses nothing without it.

    `rows` (n, ...) are calibration rows as the model takes them.
    """
    port = graph.inputs[0]
    if port.dtype != "float32" or rows.ndim < 2 or len(rows) < FEWEST_ROWS:
        return None
    return _without_scaler(graph) or _shared_out(graph, rows[:MOST_ROWS])


def on_even_features(graph: Graph, data: Dataset) -> tuple[Graph, Dataset, Normalisation | None]:
    """The model and all its rows with features of one size; both as they were where int8 loses nothing without."""
    # What rebuilds its input answers in the features' own sizes.
    found = None if data.task == "reconstruction" else evened(graph, data.rows("calibration")[0])
    if found is None:
        return graph, data, None
    return found[0], replace(data, x=found[1].apply(data.x)), found[1]


def _without_scaler(graph: Graph) -> tuple[Graph, Normalisation] | None:
    """A scaler that no layer took in: it is what stands in front already."""
    source = graph.inputs[0].name
    gain, shift, name, gone = 1.0 + np.zeros(1), np.zeros(1), source, []
    while graph.used_once(name):
        node = graph.consumers[name][0]
        match = scale_and_shift(graph, node) if node.op_type in AFFINE else None
        if match is None:
            break
        gain, shift = gain * match[1], shift * match[1] + match[2]
        gone.append(node.name)
        name = node.output[0]
    if not gone or not _uneven(np.abs(gain)) or name in graph.output_names or len(gain) > MOST_FEATURES:
        return None
    fresh = graph.copy()
    fresh.replace({each: [] for each in gone})
    fresh.redirect(name, source)
    return fresh, _normalisation(-shift / gain, 1 / gain, 1)


def _shared_out(graph: Graph, rows: Array) -> tuple[Graph, Normalisation] | None:
    """Each feature divided by its size and the weights that read it multiplied, where that makes int8 better."""
    axis, layers = _readers(graph)
    if not layers or not 1 < rows.shape[axis] <= MOST_FEATURES:
        return None
    values = np.moveaxis(rows, axis, 1).reshape(len(rows), rows.shape[axis], -1).astype(np.float64)
    mean, size = _measured(values)
    reach = max(values.max(), 0.0) - min(values.min(), 0.0)
    if not reach > LOST * min(size[size > 0], default=reach):
        return None
    if any(any(attributes(node).get("pads", ())) for node in layers):
        mean = np.zeros_like(mean)  # what is padded stands for 0
    found = _normalisation(mean, np.where(size > 0, size, 1.0), axis)
    fresh = graph.copy()
    for node in layers:
        fresh.replace({node.name: [_taking_in(fresh, node, found)]})
    names = {node.name for node in layers}
    before, after = _error(graph, names, rows, axis), _error(fresh, names, found.apply(rows), axis)
    return (fresh, found) if after * GAIN < before else None


def _readers(graph: Graph) -> tuple[int, list[NodeProto]]:
    """The axis of the features and the layers that read the input; none when anything else reads it."""
    name, axis = graph.inputs[0].name, 1
    readers = graph.consumers.get(name, [])
    rank = len(graph.inputs[0].shape)
    if len(readers) == 1 and readers[0].op_type == "Transpose":
        if list(attributes(readers[0]).get("perm", ())) != [0, rank - 1, *range(1, rank - 1)]:
            return axis, []
        name, axis = readers[0].output[0], rank - 1
        readers = graph.consumers.get(name, [])
    plain = all(_is_layer(graph, node, name) for node in readers) and name not in graph.output_names
    return axis, readers if plain else []


def _is_layer(graph: Graph, node: NodeProto, source: str) -> bool:
    options = attributes(node)
    is_dense = node.op_type == "Gemm" and options.get("transB") and options.get("alpha", 1.0) == 1.0
    constants = all(graph.constant(node, at) is not None for at in range(1, len(node.input)))
    return bool(is_dense or node.op_type == "Conv") and list(node.input).count(source) == 1 and constants


def _measured(values: Float) -> tuple[Float, Float]:
    """Mean and size of each feature of (rows, features, places); 0 for one that never changes."""
    mean = values.mean(axis=(0, 2))
    farthest = np.abs(values - mean[:, None]).max(axis=(0, 2))
    return mean, np.where(farthest > 0, np.maximum(values.std(axis=(0, 2)), farthest / REACH), 0.0)


def _uneven(sizes: Float) -> bool:
    return bool(sizes.size > 1 and sizes.min() > 0 and sizes.max() >= UNEVEN * sizes.min())


def _normalisation(mean: Float, std: Float, axis: int) -> Normalisation:
    """Rounded to float32, in the shortest decimals that mean the same: boards read them as text."""
    means, sizes = (tuple(float(str(value)) for value in each.astype(np.float32)) for each in (mean, std))
    return Normalisation(means, sizes, axis)


def _taking_in(graph: Graph, node: NodeProto, found: Normalisation) -> NodeProto:
    """The layer for normalised features: each weight times the size of what it reads, the means in the bias."""
    weights = graph.constant(node, 1)
    assert weights is not None
    bias = graph.constant(node, 2)
    groups = int(attributes(node).get("group", 1))
    first = np.arange(len(weights)) * groups // len(weights) * weights.shape[1]  # of what each output reads
    inputs = first[:, np.newaxis] + np.arange(weights.shape[1])
    places = (..., *[np.newaxis] * (weights.ndim - 2))
    sizes, means = (np.array(values)[inputs][places] for values in (found.std, found.mean))
    moved = (weights.astype(np.float64) * means).reshape(len(weights), -1).sum(axis=1)
    names = [
        graph.add_initializer(f"{node.name}_{what}", values.astype(np.float32))
        for what, values in (("weight", weights * sizes), ("bias", moved + (0 if bias is None else bias)))
    ]
    fresh = copy_of(node)
    fresh.input[:] = [node.input[0], *names]
    return fresh  # type: ignore[no-any-return]


def _error(graph: Graph, layers: set[str], rows: Array, axis: int) -> float:
    """The mean squared error that int8 inputs and weights bring into what the named layers make."""
    rows = np.ascontiguousarray(np.moveaxis(rows, axis, 1), np.float32)
    scale, zero = affine((min(float(rows.min()), 0.0), max(float(rows.max()), 0.0)))
    stored = ((np.clip(np.rint(rows / scale) + zero, -128, 127) - zero) * scale).astype(np.float32)
    total = 0.0
    for node in [each for each in graph.nodes if each.name in layers]:
        weights = graph.constant(node, 1)
        assert weights is not None
        peaks = np.abs(weights).reshape(len(weights), -1).max(axis=1)
        steps = (np.where(peaks > 0, peaks, 1.0) / WEIGHT_MAX).reshape(-1, *[1] * (weights.ndim - 1))
        rounded = (np.rint(weights / steps) * steps).astype(np.float32)
        gap = _answers(node, rows, weights) - _answers(node, stored, rounded)
        total += float((gap.astype(np.float64) ** 2).mean())
    return total


def _answers(node: NodeProto, rows: Array, weights: Array) -> Array:
    """What the layer makes of rows, without its bias."""
    alone = copy_of(node)
    alone.input[:] = ["x", "w"]
    alone.output[:] = ["y"]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, rows.shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    body = helper.make_graph([alone], "layer", [given], [made], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", opset.OPSET)], ir_version=opset.IR_VERSION
    )
    return run_once(open_session(model.SerializeToString()), {"x": rows})[0]
