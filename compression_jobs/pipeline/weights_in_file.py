"""Where in an artifact lie weights of more than one byte; the rest is looked at as bytes anyway."""

from collections.abc import Iterable

import numpy as np
import onnx

from compression_jobs.pipeline.segments import Weights

# Below this a table of its own costs more than it saves.
LEAST_BYTES = 256


def weights_in(artifact: bytes, format: str) -> list[Weights]:
    """Ranges of elements of two, four or eight bytes, in order."""
    if format == "onnx":
        return _located(artifact, _onnx_tensors(artifact))
    if format == "tflite":
        return _located(artifact, _tflite_tensors(artifact))
    return []


def _onnx_tensors(artifact: bytes) -> Iterable[tuple[bytes, int]]:
    for tensor in onnx.load_from_string(artifact).graph.initializer:
        if tensor.HasField("raw_data"):
            yield tensor.raw_data, onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _tflite_tensors(artifact: bytes) -> Iterable[tuple[bytes, int]]:
    from ai_edge_litert import schema_py_generated as schema

    widths = {
        schema.TensorType.FLOAT16: 2,
        schema.TensorType.FLOAT32: 4,
        schema.TensorType.INT32: 4,
        schema.TensorType.INT64: 8,
    }
    model = schema.Model.GetRootAs(artifact)
    for at in range(model.SubgraphsLength()):
        graph = model.Subgraphs(at)
        for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
            buffer = model.Buffers(tensor.Buffer())
            if tensor.Type() in widths and buffer.DataLength():
                yield np.asarray(buffer.DataAsNumpy()).tobytes(), widths[tensor.Type()]


def _located(artifact: bytes, tensors: Iterable[tuple[bytes, int]]) -> list[Weights]:
    """Each tensor where it stands first; one that overlaps another is left out."""
    found = []
    for data, width in tensors:
        if width > 1 and len(data) >= LEAST_BYTES and len(data) % width == 0:
            start = artifact.find(data)
            if start >= 0:
                found.append(Weights(start, start + len(data), width))
    ordered: list[Weights] = []
    for weights in sorted(found, key=lambda each: each.start):
        if not ordered or weights.start >= ordered[-1].end:
            ordered.append(weights)
    return ordered
