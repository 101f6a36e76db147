"""Writes transport coding `segments`: each range of an artifact in its smallest form.

Weights of floats are found by the format's own ranges; everything else is taken as bytes, cut where the statistics
of the bytes change. Han et al. 2016, "Deep Compression", section 4. The format: `device_agent.core.segments`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from device_agent.core.segments import (
    DENSE,
    HEAD_BYTES,
    HEAD_FORMAT,
    LONG_GAP,
    MAX_CODE_BITS,
    MAX_ENTRIES,
    RAW,
    SPARSE,
)

Numbers = npt.NDArray[np.integer]

BLOCK_BYTES = 1024
BATCH = 1 << 17  # codes turned into bits at a time
_DTYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class Weights:
    """A range of the artifact that holds elements of `width` bytes."""

    start: int
    end: int
    width: int


def encode(data: bytes, weights: Sequence[Weights] = ()) -> bytes:
    """The segments of an artifact; `weights` do not overlap and lie in order."""
    parts: list[bytes] = []
    at = 0
    for found in weights:
        parts += _encode_bytes(data[at : found.start])
        parts += _encode_weights(data[found.start : found.end], found.width)
        at = found.end
    return b"".join(parts + _encode_bytes(data[at:]))


def _encode_weights(part: bytes, width: int) -> list[bytes]:
    """The smaller of the two: elements as they are, or as bytes."""
    if width == 1:
        return _encode_bytes(part)
    elements = np.frombuffer(part, _DTYPES[width])
    whole = min(_forms(elements), key=len)
    as_bytes = _encode_bytes(part)
    return [whole] if len(whole) <= sum(map(len, as_bytes)) else as_bytes


def _encode_bytes(part: bytes) -> list[bytes]:
    values = np.frombuffer(part, np.uint8)
    return [min(_forms(values[start:end]), key=len) for start, end in _cuts(values)]


def _cuts(values: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Ranges of bytes with statistics of their own: neighbours stay apart while that is estimated to be smaller."""
    starts = list(range(0, len(values), BLOCK_BYTES))
    done: list[tuple[int, int, Numbers]] = []
    for start in starts:
        end = min(start + BLOCK_BYTES, len(values))
        counts = np.bincount(values[start:end], minlength=256)
        while done and _estimate(done[-1][2] + counts) <= _estimate(done[-1][2]) + _estimate(counts):
            start, _, before = done.pop()
            counts = counts + before
        done.append((start, end, counts))
    return [(start, end) for start, end, _ in done]


def _estimate(counts: Numbers) -> float:
    """About how many bytes a segment of bytes with these counts takes: entropy, head and tables."""
    used = counts[counts > 0].astype(np.float64)
    total = used.sum()
    raw = HEAD_BYTES + total
    coded = HEAD_BYTES + 1.5 * len(used) + float(used @ np.log2(total / used)) / 8
    alive = used.sum() - counts[0]
    if counts[0] and alive:
        density = alive / total
        run = -np.log2(density) - (1 - density) / density * np.log2(1 - density)
        others = counts[1:][counts[1:] > 0].astype(np.float64)
        sparse = (
            HEAD_BYTES + 1.5 * len(others) + 40 + (float(others @ np.log2(alive / others)) + alive * run) / 8
        )
        coded = min(coded, sparse)
    return float(min(raw, coded))


def _forms(elements: Numbers) -> list[bytes]:
    """Every form that these elements can take."""
    width = elements.itemsize
    forms = [struct.pack(HEAD_FORMAT, RAW, width, 0, 0, len(elements)) + elements.tobytes()]
    book, places = np.unique(elements, return_inverse=True)
    if len(book) <= MAX_ENTRIES:
        forms.append(_dense(book, places))
    if (elements == 0).any():
        forms.append(_sparse(elements))
    return forms


def _dense(book: Numbers, places: Numbers) -> bytes:
    lengths = code_lengths(np.bincount(places, minlength=len(book)))
    head = struct.pack(HEAD_FORMAT, DENSE, book.itemsize, len(book), 0, len(places))
    return head + book.tobytes() + _packed(lengths) + _bits(*_coded(lengths, places))


def _sparse(elements: Numbers) -> bytes:
    """Gaps and elements in turn; long gaps in steps of 255."""
    width = elements.itemsize
    alive = np.flatnonzero(elements)
    gaps = np.diff(np.concatenate([[-1], alive, [len(elements)]])) - 1
    is_last_needed = gaps[-1] > 0 and gaps[-1] % LONG_GAP > 0
    values = elements[alive]
    book, places = np.unique(values, return_inverse=True)
    if len(book) > MAX_ENTRIES:
        book, places = book[:0], places[:0]
    steps = gaps // LONG_GAP + 1  # gap codes before each element
    if not is_last_needed:
        steps[-1] -= 1
    ends = np.cumsum(steps)
    symbols = np.full(ends[-1], LONG_GAP)
    short = ends - 1 if is_last_needed else ends[:-1] - 1
    symbols[short] = (gaps if is_last_needed else gaps[:-1]) % LONG_GAP
    gap_lengths = code_lengths(np.bincount(symbols))
    lengths = code_lengths(np.bincount(places, minlength=len(book)))
    head = struct.pack(HEAD_FORMAT, SPARSE, width, len(book), len(gap_lengths), len(elements))
    gap_codes, gap_bits = _coded(gap_lengths, symbols)
    codes, bits = _coded(lengths, places) if len(book) else _literal(values)
    each = len(codes) // max(len(alive), 1)  # raw elements are several codes of eight bits
    at = np.repeat(ends[: len(alive)], each)
    body = _bits(np.insert(gap_codes, at, codes), np.insert(gap_bits, at, bits))
    return head + book.tobytes() + _packed(lengths) + _packed(gap_lengths) + body


def _literal(values: Numbers) -> tuple[Numbers, Numbers]:
    plain = np.frombuffer(values.tobytes(), np.uint8).astype(np.int64)
    return plain, np.full(len(plain), 8)


def code_lengths(counts: Numbers) -> Numbers:
    """Lengths of Huffman codes, at most fifteen bits; 0 for symbols that do not occur, 1 for a lonely one."""
    used = [(int(count), symbol) for symbol, count in enumerate(counts) if count]
    lengths = np.zeros(len(counts), dtype=np.int64)
    if len(used) == 1:
        lengths[used[0][1]] = 1
        return lengths
    while used:
        for symbol, depth in _depths(used).items():
            lengths[symbol] = depth
        if lengths.max() <= MAX_CODE_BITS:
            break
        # Flatter counts make a flatter tree; a few bits are lost on the rarest symbols only.
        used = [(count // 2 + 1, symbol) for count, symbol in used]
    return lengths


def _depths(used: list[tuple[int, int]]) -> dict[int, int]:
    """Depth of each symbol in the Huffman tree; ties go to the lower symbol, so that the result is one."""
    heap = [(count, symbol, [symbol]) for count, symbol in used]
    depths = {symbol: 0 for _, symbol in used}
    heapify(heap)
    while len(heap) > 1:
        first, second = heappop(heap), heappop(heap)
        merged = first[2] + second[2]
        for symbol in merged:
            depths[symbol] += 1
        heappush(heap, (first[0] + second[0], min(first[1], second[1]), merged))
    return depths


def _coded(lengths: Numbers, symbols: Numbers) -> tuple[Numbers, Numbers]:
    """The canonical code word of each symbol, and its length."""
    words = np.zeros(len(lengths), dtype=np.int64)
    order = sorted((int(length), symbol) for symbol, length in enumerate(lengths) if length)
    word = 0
    for (length, symbol), (following, _) in pairwise([*order, (order[-1][0] if order else 0, 0)]):
        words[symbol] = word
        word = (word + 1) << (following - length)
    return words[symbols], lengths[symbols]


def _bits(words: Numbers, lengths: Numbers) -> bytes:
    """Code words one after the other, most significant bit first, padded with zeros to a byte."""
    parts: list[npt.NDArray[np.uint8]] = []
    for start in range(0, len(words), BATCH):
        batch, sizes = words[start : start + BATCH], lengths[start : start + BATCH]
        owner = np.repeat(np.arange(len(batch)), sizes)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        parts.append((batch[owner] >> (sizes[owner] - 1 - place) & 1).astype(np.uint8))
    return np.packbits(np.concatenate(parts)).tobytes() if parts else b""


def _packed(lengths: Numbers) -> bytes:
    """Two code lengths a byte, low half first."""
    even = np.append(lengths, 0) if len(lengths) % 2 else lengths
    return (even[::2] | even[1::2] << 4).astype(np.uint8).tobytes()
