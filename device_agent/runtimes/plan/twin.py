"""Runs plans on CPython: the same file, the same bytes as the kernels give, on many rows at once with NumPy.

A plan that keeps a state runs row after row in one arena, as on a board.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from device_agent.runtimes.plan import kinds, layout
from device_agent.runtimes.plan.interpreter import TILE_BYTES
from device_agent.runtimes.plan.words import WITHOUT_STATE, WORDS

Array = np.ndarray[Any, Any]
Words = dict[str, int]

# Rows are computed together up to about this many multiplied numbers of one operator.
BATCH_NUMBERS = 1 << 22
# MicroPython's objects around a loaded plan and around each operator: upper bounds, seen on a 64-bit port.
LOADED_BYTES, OPERATOR_BYTES = 1024, 192


class Plan:
    """One loaded plan."""

    inputs: list[Any]
    outputs: list[Any]
    arena_bytes: int
    keeps_state: bool
    _operators: list[tuple[int, Words]]

    def __init__(self) -> None:
        self.unload()

    def load(self, path: str) -> None:
        """Read the file; raises PlanError or OSError."""
        self.unload()
        with open(path, "rb") as file:
            self.arena_bytes, start, size, inputs, outputs, operators = layout.read(file)
            self.inputs, self.outputs = inputs, outputs
            file.seek(len(layout.MAGIC))
            self.keeps_state = file.read(2) != WITHOUT_STATE.to_bytes(2, "little")
            file.seek(start)
            self._weights = np.frombuffer(file.read(size), np.uint8)
        self._operators = [
            (kind, dict(zip(WORDS[kind], map(int, words), strict=True))) for kind, words in operators
        ]
        numbers = max([_numbers(*op) for op in self._operators], default=1)
        self._together = 1 if self.keeps_state else max(1, BATCH_NUMBERS // numbers)
        self.reset()

    def unload(self) -> None:
        """Free the plan; harmless when nothing is loaded."""
        self.inputs, self.outputs, self._operators = [], [], []
        self.arena_bytes, self.keeps_state = 0, False

    def reset(self) -> None:
        """Forget what earlier runs have left."""
        self._arena = np.zeros((1, self.arena_bytes), np.uint8)

    @property
    def heap_bytes(self) -> int:
        """What a board's heap holds while the plan runs and its weights are streamed: arena, tile, words, buffers."""
        rows = [words["row_bytes"] for kind, words in self._operators if kind == kinds.CONVOLVE]
        operators = sum(OPERATOR_BYTES + 4 * len(words) for _, words in self._operators)
        buffers: int = sum(edge[1] for edge in self.inputs + self.outputs)
        tile: int = max([TILE_BYTES, *rows])
        return self.arena_bytes + tile + operators + buffers + LOADED_BYTES

    def run_rows(self, inputs: list[Array]) -> list[Array]:
        """Raw outputs for raw inputs, (rows, bytes) of int8 each; runs one after the other."""
        rows = len(inputs[0])
        parts = [
            self._run([part[at : at + self._together] for part in inputs])
            for at in range(0, rows, self._together)
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def run(self, inputs: Any, outputs: Any) -> None:
        """Raw int8 tensors in, raw int8 tensors out: one buffer each, or a list of them where there are several."""
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        wanted = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        for buffers, edges in ((given, self.inputs), (wanted, self.outputs)):
            sizes, takes = [memoryview(b).nbytes for b in buffers], [edge[1] for edge in edges]
            if sizes != takes:
                raise kinds.PlanError(f"the buffers have {sizes} bytes, the plan takes {takes}")
        answers = self.run_rows([np.frombuffer(data, np.int8)[np.newaxis] for data in given])
        for buffer, answer in zip(wanted, answers, strict=True):
            memoryview(buffer).cast("B")[:] = answer.tobytes()

    def _run(self, inputs: list[Array]) -> list[Array]:
        arena = self._arena
        if not self.keeps_state:
            arena = np.zeros((len(inputs[0]), self.arena_bytes), np.uint8)
        for (offset, size, *_), data in zip(self.inputs, inputs, strict=True):
            arena[:, offset : offset + size] = data.view(np.uint8) ^ 128
        for kind, words in self._operators:
            KERNELS[kind](arena, self._weights, words)
        return [(arena[:, at : at + size] ^ 128).view(np.int8) for at, size, *_ in self.outputs]


def _numbers(kind: int, w: Words) -> int:
    """How many numbers an operator has at hand for one row."""
    if kind == kinds.CONVOLVE:
        return w["out_h"] * w["out_w"] * max(w["k_h"] * w["k_w"] * w["in_c"], w["out_c"])
    if kind == kinds.POOL:
        return w["out_h"] * w["out_w"] * w["k_h"] * w["k_w"] * w["in_c"]
    return w.get("inner", 0) * w.get("count", 0) * w.get("outer", 0) + 1


# --- arithmetic ----------------------------------------------------------------------------------


def _requantize(acc: Array, multiplier: Any, left: Any, right: Any) -> Array:
    """MultiplyByQuantizedMultiplier with double rounding."""
    shifted = acc << left
    product = np.abs(shifted) * multiplier
    high = (product + (1 << 30) - (shifted < 0)) >> 31
    high = np.where(shifted < 0, -high, high)
    mask = (1 << np.asarray(right, np.int64)) - 1
    return np.asarray((high >> right) + ((high & mask) > (mask >> 1) + (high < 0)))


def _high(a: Array, b: Array) -> Array:
    """(a * b + 2^30) / 2^31, halves away from zero."""
    product = a * b
    return np.where(product < 0, -((-product + (1 << 30) - 1) >> 31), (product + (1 << 30)) >> 31)


# --- kernels -------------------------------------------------------------------------------------


def _take(arena: Array, offset: int, *shape: int) -> Array:
    size = int(np.prod(shape))
    return arena[:, offset : offset + size].reshape(len(arena), *shape)


def _put(arena: Array, offset: int, values: Array) -> None:
    flat = values.reshape(len(arena), -1)
    arena[:, offset : offset + flat.shape[1]] = flat


def _windows(x: Array, w: Words, fill: int, dilation: tuple[int, int]) -> Array:
    """Windows as (rows, out height, out width, kernel height, kernel width, channels), outside filled."""
    reach = [(w[f"k_{axis}"] - 1) * step + 1 for axis, step in zip("hw", dilation, strict=True)]
    pads = [(0, 0)]
    for axis, (size, before) in enumerate((("h", "pad_top"), ("w", "pad_left"))):
        end = (w[f"out_{size}"] - 1) * w[f"stride_{size}"] + reach[axis] - w[before]
        pads.append((w[before], max(0, end - w[f"in_{size}"])))
    padded = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    every = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    every = every[:, :: w["stride_h"], :: w["stride_w"], :, :: dilation[0], :: dilation[1]]
    return every[:, : w["out_h"], : w["out_w"]].transpose(0, 1, 2, 4, 5, 3)


def _convolve(arena: Array, weights: Array, w: Words) -> None:
    x = _take(arena, w["source"], w["in_h"], w["in_w"], w["in_c"])
    rows = weights[w["weights"] :][: w["out_c"] * w["row_bytes"]].reshape(w["out_c"], w["row_bytes"])
    bias, multiplier, shifts = rows[:, : layout.ROW_HEAD].copy().view("<u4").astype(np.int64).T
    windows = _windows(x, w, w["zero_in"], (w["dilation_h"], w["dilation_w"]))
    taps = w["k_h"] * w["k_w"] * (1 if w["times"] else w["in_c"])
    kernel = rows[:, layout.ROW_HEAD : layout.ROW_HEAD + taps].astype(np.float64) - 128
    # Integers below 2^53 are exact in float64, and its matrix product is many times faster.
    if w["times"]:
        repeated = np.repeat(windows, w["times"], axis=-1).astype(np.float64)
        sums = np.einsum("nhwijc,cij->nhwc", repeated, kernel.reshape(-1, w["k_h"], w["k_w"]), optimize=False)
    else:
        sums = windows.reshape(*windows.shape[:3], -1).astype(np.float64) @ kernel.T
    acc = sums.astype(np.int64) + bias - (1 << 30)
    result = _requantize(acc, multiplier, shifts >> 6, shifts & 63) + w["zero_out"]
    _put(arena, w["target"], np.clip(result, w["low"], w["high"]))


def _rescale(arena: Array, weights: Array, w: Words) -> None:
    a = _take(arena, w["a"], w["outer"], w["count"], w["inner"]).astype(np.int64)
    b = _take(arena, w["b"], w["outer"], w["inner"]).astype(np.int64) - w["zero_b"]
    acc = (a - w["zero_a"]).sum(axis=2)
    factors = [(w[f"mult_{n}"], w[f"left_{n}"], w[f"right_{n}"]) for n in "abo"]
    if w["first"] == 0:
        second = _requantize(b << 20, *factors[1])
        acc = _requantize(acc << 20, *factors[0]) + (-second if w["combine"] else second)
    elif w["combine"]:
        acc = acc * b
    result = _requantize(acc, *factors[2]) + w["zero_out"]
    _put(arena, w["target"], np.clip(result, w["low"], w["high"]))


def _pool(arena: Array, weights: Array, w: Words) -> None:
    x = _take(arena, w["source"], w["in_h"], w["in_w"], w["in_c"]).astype(np.int64)
    if w["largest"]:
        result = _windows(x, w, 0, (1, 1)).max(axis=(3, 4))
    else:
        sums = _windows(x - 128, w, 0, (1, 1)).sum(axis=(3, 4))
        counts = _windows(np.ones_like(x), w, 0, (1, 1)).sum(axis=(3, 4))
        magnitude = (np.abs(sums) + counts // 2) // counts
        result = np.where(sums < 0, -magnitude, magnitude) + 128
    _put(arena, w["target"], result)


def _move(arena: Array, weights: Array, w: Words) -> None:
    sizes = [w[f"n{axis}"] for axis in range(4)]
    source = _strided(arena, w["source"], sizes, [w[f"s{axis}"] for axis in range(4)])
    target = _strided(arena, w["target"], sizes, [w[f"t{axis}"] for axis in range(3)] + [1])
    if w["tabled"]:
        target[...] = weights[w["weights"] : w["weights"] + 256][source]
    else:
        target[...] = source & (w["keep"] & 255) ^ (w["flip"] & 255)


def _strided(arena: Array, offset: int, sizes: list[int], steps: list[int]) -> Array:
    return np.lib.stride_tricks.as_strided(
        arena[:, offset:], (len(arena), *sizes), (arena.strides[0], *steps)
    )


def _softmax(arena: Array, weights: Array, w: Words) -> None:
    x = _take(arena, w["source"], w["rows"], w["width"]).astype(np.int64)
    table = weights[w["weights"] :][: 4 * layout.SOFTMAX_TABLE].copy().view("<u4").astype(np.int64)
    exponentials = table[x.max(axis=2, keepdims=True) - x]
    total = ((exponentials >> 12) + (exponentials >> 11 & 1)).sum(axis=2, keepdims=True)
    room = 31 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    half, right = total << room, 34 - room
    y = table[256] - _high(half, table[257])
    for _ in range(3):
        y = y + (_high(y, (1 << 29) - _high(half, y)) << 2)
    reciprocal = np.minimum(y << 1, (1 << 31) - 1)
    product = _high(reciprocal, exponentials)
    _put(arena, w["target"], np.minimum((product >> right) + (product >> (right - 1) & 1), 255))


KERNELS: tuple[Callable[[Array, Array, Words], None], ...] = (_convolve, _rescale, _pool, _move, _softmax)
