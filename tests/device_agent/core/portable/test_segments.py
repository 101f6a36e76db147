"""Coding `segments`, as vectors of the format: what it decodes to, and what is refused."""

import struct

from device_agent.core.coding import CodingError, decoder
from device_agent.core.decoding import PIECE_BYTES

RAW, DENSE, SPARSE = 0, 1, 2


def head(kind: int, width: int, entries: int, gaps: int, count: int) -> bytes:
    return struct.pack("<BBHHI", kind, width, entries, gaps, count)


# Codes 0 = 10, 1 = 0, 2 = 11: lengths 2, 1, 2. Elements aa bb cc bb bb: 10 0 11 0 0.
DENSE_WORDS = head(DENSE, 2, 3, 0, 5) + b"aabbcc" + b"\x12\x02" + bytes([0b10011000])
# Gap 0 = 0, gap 2 = 1; one entry, code 0. Elements x 0 0 x, then two zeros: gaps 0 2 2, without an entry at the end.
SPARSE_BYTES = head(SPARSE, 1, 1, 3, 6) + b"x" + b"\x01" + b"\x01\x01" + bytes([0b00101000])
# No codebook: the elements follow their gap as they are.
SPARSE_PLAIN = head(SPARSE, 2, 0, 2, 3) + b"\x11" + bytes([0b10100001, 0b01000010, 0b11000000])


def decoded(data: bytes, total: int, chunk: int) -> bytes:
    stream = decoder("segments", total)
    result = bytearray()
    for start in range(0, len(data), chunk):
        for piece in stream.feed(data[start : start + chunk]):
            assert len(piece) <= PIECE_BYTES
            result.extend(piece)
    for piece in stream.finish():
        assert len(piece) <= PIECE_BYTES
        result.extend(piece)
    return bytes(result)


def refused(data: bytes, total: int) -> str:
    found = ""
    for chunk in (1, 4096):
        try:
            decoded(data, total, chunk)
        except CodingError as error:
            found = str(error)
        else:
            raise AssertionError("accepted")
    return found


def test_every_kind_of_segment_in_any_chunking() -> None:
    raw = head(RAW, 4, 0, 0, 2) + b"abcdefgh"
    vectors = (
        (raw, b"abcdefgh"),
        (DENSE_WORDS, b"aabbccbbbb"),
        (SPARSE_BYTES, b"x\0\0x\0\0"),
        (SPARSE_PLAIN, b"\0\0\x42\x85\0\0"),
        (raw + SPARSE_BYTES + raw + DENSE_WORDS, b"abcdefghx\0\0x\0\0abcdefghaabbccbbbb"),
        (b"", b""),
    )
    for data, plain in vectors:
        for chunk in (1, 2, 3, 5, 17, 4096):
            assert decoded(data, len(plain), chunk) == plain


def test_long_runs_of_zeros() -> None:
    # 1020 = 4 x 255 zeros of eight bytes; the only gap is 255, code 0.
    lengths = bytes(127) + b"\x10"
    data = head(SPARSE, 8, 0, 256, 1020) + lengths + b"\x00"
    assert decoded(data, 8160, 4096) == bytes(8160)
    assert "beyond" in refused(head(SPARSE, 8, 0, 256, 1019) + lengths + b"\x00", 8152)


def test_a_segment_never_gives_more_than_the_artifact_has() -> None:
    assert "more than the 4 bytes" in refused(head(RAW, 1, 0, 0, 5) + b"abcde", 4)
    assert "more than the 9 bytes" in refused(DENSE_WORDS, 9)
    assert "more than" in refused(head(DENSE, 8, 1, 0, 0xFFFFFFFF) + bytes(8) + b"\x01" + bytes(50), 1 << 20)
    assert "empty" in refused(head(RAW, 1, 0, 0, 0) + b"abc", 3)


def test_what_is_cut_short_or_too_long_is_refused() -> None:
    whole = SPARSE_BYTES + DENSE_WORDS
    for cut in range(len(whole)):
        assert "early" in refused(whole[:cut], 16)
    assert "follow" in refused(whole + b"\0", 16)
    assert "follow" in refused(whole + bytes(5000), 16)
    assert "follow" in refused(b"x", 0)


def test_heads_and_codes_that_make_no_sense_are_refused() -> None:
    for bad in (
        head(3, 1, 0, 0, 1),
        head(RAW, 3, 0, 0, 1),
        head(RAW, 1, 1, 0, 1),
        head(DENSE, 1, 0, 0, 1),
        head(DENSE, 1, 513, 0, 1),
        head(DENSE, 1, 1, 1, 1),
        head(SPARSE, 1, 1, 0, 1),
        head(SPARSE, 1, 1, 257, 1),
    ):
        assert "no head" in refused(bad + bytes(5000), 100)
    assert "more words than fit" in refused(head(DENSE, 1, 3, 0, 9) + b"abc\x11\x01" + bytes(9), 9)
    assert "no code" in refused(head(DENSE, 1, 1, 0, 9) + b"a\x01" + b"\xff" * 9, 9)
    assert "no code" in refused(head(DENSE, 1, 1, 0, 9) + b"a\x0f" + b"\xff" * 90, 9)
    assert "beyond" in refused(head(SPARSE, 1, 1, 3, 1) + b"x" + b"\x01" + b"\x00\x01" + bytes(9), 1)
