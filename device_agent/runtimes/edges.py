"""The edges of a model: numbers as an application has them to tensors as the model takes them, and back."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from device_agent.core.ports import InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Normalisation:
    """What an int8 input wants done to real numbers first: `(x - mean) / std`, shaped for one row."""

    mean: Array
    std: Array

    def __call__(self, numbers: Array) -> Array:
        """The numbers as the model was made for them, float32."""
        done: Array = (numbers.astype(np.float32) - self.mean) / self.std
        return done


@dataclass(frozen=True)
class Edge:
    """One input or output: what the model says about it and, for integers that stand for reals, the scale."""

    name: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0
    normalisation: Normalisation | None = None

    @property
    def bytes(self) -> int:
        """Size of the tensor."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name} {list(self.shape)}"

    def from_raw(self, raw: Any) -> Array:
        """The tensor in raw little-endian bytes; raises InputError when their number is wrong."""
        data = memoryview(raw)
        if data.nbytes != self.bytes:
            raise InputError(
                f"{self.name} has {data.nbytes} bytes, the model takes {self} ({self.bytes} bytes)"
            )
        return np.frombuffer(data, dtype=self.dtype.newbyteorder("<")).reshape(self.shape)

    def from_numbers(self, x: Any) -> Array:
        """The tensor for raw bytes, or for real numbers shaped like the input, without its batch of 1, or flat."""
        if isinstance(x, bytes | bytearray | memoryview):
            return self.from_raw(x)
        numbers = _numbers(x, self.name)
        if numbers.shape not in (self.shape, self.shape[1:], (int(np.prod(self.shape)),)):
            raise InputError(f"{self.name} has shape {list(numbers.shape)}, the model takes {self}")
        if not np.isfinite(numbers).all():
            # A model answers nonsense to them, which would be held against the model.
            raise InputError(f"{self.name} holds NaN or infinity")
        if self.scale is not None and numbers.dtype != self.dtype:
            if self.normalisation:
                numbers = self.normalisation(numbers.reshape(self.shape))
            numbers = self._quantised(numbers)
        return np.ascontiguousarray(numbers.reshape(self.shape), dtype=self.dtype)

    def to_numbers(self, tensor: Array) -> Array:
        """The flat real numbers a tensor stands for."""
        if self.scale is None:
            return tensor.reshape(-1)
        steps = tensor.reshape(-1).astype(np.int32) - self.zero_point
        return (steps * np.float32(self.scale)).astype(np.float32)

    def _quantised(self, numbers: Array) -> Array:
        steps = numbers.astype(np.float32) / np.float32(self.scale)
        # TFLite's QUANTIZE rounds halves away from zero; NumPy would round them to even.
        whole = np.copysign(np.floor(np.abs(steps) + np.float32(0.5)), steps) + self.zero_point
        limits = np.iinfo(self.dtype)
        quantised: Array = np.clip(whole, limits.min, limits.max).astype(self.dtype)
        return quantised


def _numbers(x: Any, name: str) -> Array:
    try:
        numbers = np.asarray(x)
    except ValueError:
        numbers = np.asarray(None)  # a ragged list
    if numbers.dtype.kind not in "fiub":
        raise InputError(f"{name} is no array of numbers")
    return numbers


def inputs_of(x: Any, edges: list[Edge]) -> list[Array]:
    """One tensor an input; a model with several takes a list with one entry each."""
    if len(edges) == 1:
        return [edges[0].from_numbers(x)]
    if not isinstance(x, list | tuple) or len(x) != len(edges):
        names = ", ".join(edge.name for edge in edges)
        raise InputError(f"the model takes {len(edges)} inputs ({names}): give a list with one entry each")
    return [edge.from_numbers(part) for edge, part in zip(edges, x, strict=True)]


def raw_inputs(raw: list[bytes], edges: list[Edge]) -> list[Array]:
    """The tensors in raw bytes; raises ValueError when their number or size is wrong."""
    if len(raw) != len(edges):
        raise ValueError(f"{len(raw)} inputs were given, the model takes {len(edges)}")
    return [edge.from_raw(part) for edge, part in zip(edges, raw, strict=True)]


def raw_outputs(tensors: list[Array]) -> list[bytes]:
    """Raw little-endian bytes of each tensor."""
    return [np.ascontiguousarray(t, dtype=t.dtype.newbyteorder("<")).tobytes() for t in tensors]


def check_signature(edges: list[Edge], specs: Any, what: str) -> None:
    """Raise ValueError unless the signature, where it speaks, describes the model that was loaded."""
    if not specs:
        return
    if len(specs) != len(edges):
        raise ValueError(f"the signature has {len(specs)} {what}s, the model has {len(edges)}")
    for edge, spec in zip(edges, specs, strict=True):
        told = (spec.get("dtype", edge.dtype.name), list(spec.get("shape", edge.shape)))
        if told != (edge.dtype.name, list(edge.shape)):
            raise ValueError(
                f"the signature says {what} {edge.name} is {told[0]} {told[1]}, the model has {edge}"
            )


def normalised(edges: list[Edge], told: Any) -> list[Edge]:
    """The inputs of a model that wants them normalised as its signature tells: `{mean, std, axis}`, or None.

    Raises ValueError when that does not fit the model's one int8 input.
    """
    if told is None:
        return edges
    reason = "the signature's normalisation does not fit the model's input"
    if len(edges) != 1 or edges[0].scale is None or not isinstance(told, dict):
        raise ValueError(reason)
    [edge], axis = edges, told.get("axis", 1)
    mean, std = (np.asarray(told.get(name), np.float32) for name in ("mean", "std"))
    shape = [1] * len(edge.shape)
    if not isinstance(axis, int) or not 0 < axis < len(shape) or mean.shape != (edge.shape[axis],):
        raise ValueError(reason)
    if std.shape != mean.shape or not (np.isfinite(mean).all() and np.isfinite(std).all() and std.all()):
        raise ValueError(reason)
    shape[axis] = -1
    return [replace(edge, normalisation=Normalisation(mean.reshape(shape), std.reshape(shape)))]
