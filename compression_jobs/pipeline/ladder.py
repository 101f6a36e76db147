"""The cheap recipes that every search tries first, by runtime: nothing in them trains."""

from typing import Any

Steps = list[dict[str, Any]]

FLOAT: dict[str, Any] = {"name": "canonicalise"}


def int8(**options: Any) -> dict[str, Any]:
    """A quantize step."""
    return {"name": "quantize", "options": options}


_EQUALIZED = int8(granularity="per_tensor", calibration="minmax", bias_correction=True)
_ALL_INT8: list[Steps] = [
    [FLOAT, int8(calibration="minmax")],
    [FLOAT, int8(calibration="percentile")],
    [FLOAT, int8(calibration="entropy")],
    [FLOAT, int8(calibration="mse")],
    [FLOAT, int8(granularity="per_tensor", calibration="minmax")],
    [FLOAT, int8(granularity="per_tensor", calibration="mse")],
    [FLOAT, {"name": "equalize"}, _EQUALIZED],
]

# Tried in this order. Runtimes that run int8 only have no float one.
LADDERS: dict[str, list[Steps]] = {
    "onnxruntime": [[FLOAT], *_ALL_INT8],
    "litert": _ALL_INT8,
    "tflite-micro": _ALL_INT8,
    "micropython": _ALL_INT8,
}
# A ready .tflite is only carried over to the runtime.
READY: list[Steps] = [[{"name": "keep"}]]
