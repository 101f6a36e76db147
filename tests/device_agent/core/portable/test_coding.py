"""Transport bytes decode as a stream, in any chunking, and never past the size of the artifact."""

from device_agent.core.coding import PIECE_BYTES, CodingError, decoder

ZEROS = bytes.fromhex("edc13101000000c2a0f54f6d0d0fa00000807703")  # 3000 zeros
WORDS = bytes.fromhex("2bc9ccab4ccb494d2d5128c1c20200")  # b"tinyfleet " three times


def stored(data: bytes, last: bool = True) -> bytes:
    """One stored block of raw deflate."""
    size = len(data)
    return bytes([last, size & 255, size >> 8, ~size & 255, ~size >> 8 & 255]) + data


def decoded(coding: str, data: bytes, total: int, chunk: int) -> bytes:
    stream = decoder(coding, total)
    result = bytearray()
    for start in range(0, len(data), chunk):
        for piece in stream.feed(data[start : start + chunk]):
            assert len(piece) <= PIECE_BYTES
            result.extend(piece)
    for piece in stream.finish():
        result.extend(piece)
    return bytes(result)


def refused(coding: str, data: bytes, total: int, chunk: int = 64) -> str:
    try:
        decoded(coding, data, total, chunk)
    except CodingError as error:
        return str(error)
    raise AssertionError("accepted")


def test_plain_bytes_pass_through() -> None:
    data = bytes(range(256)) * 10
    for chunk in (1, 100, 4096):
        assert decoded("none", data, len(data), chunk) == data
    assert decoded("none", b"", 0, 1) == b""


def test_deflate_round_trips_in_any_chunking() -> None:
    long = bytes(range(256)) * 36
    blocks = b"".join([stored(long[i : i + 500], False) for i in range(0, len(long), 500)]) + stored(b"")
    for data, plain in ((ZEROS, bytes(3000)), (WORDS, b"tinyfleet " * 3), (blocks, long), (stored(b""), b"")):
        for chunk in (1, 7, 1000, 4096, 32768):
            assert decoded("deflate", data, len(plain), chunk) == plain


def test_nothing_is_given_out_past_the_size_of_the_artifact() -> None:
    for total in (0, 1, 2999):
        stream = decoder("deflate", total)
        given = 0
        try:
            for piece in stream.feed(ZEROS):
                given += len(piece)
            for piece in stream.finish():
                given += len(piece)
        except CodingError as error:
            assert "more than the %d bytes" % total in str(error)
        else:
            raise AssertionError("accepted")
        assert given <= total
    assert "more than" in refused("none", b"xxxx", 3)


def test_a_short_stream_is_refused() -> None:
    assert "decoded 3 bytes" in refused("none", b"xxx", 4)
    assert "decoded 3000 bytes" in refused("deflate", ZEROS, 3001)
    for cut in range(len(WORDS)):
        assert "early" in refused("deflate", WORDS[:cut], 30)
    assert "early" in refused("deflate", stored(bytes(3000), False), 3000)


def test_a_stream_cut_after_a_long_one_does_not_read_old_bytes() -> None:
    assert "early" in refused("deflate", stored(bytes(5000), False) + stored(bytes(5000))[:2500], 10000, 4096)


def test_bytes_after_the_end_are_refused() -> None:
    assert "follow" in refused("deflate", WORDS + b"x", 30)
    assert "follow" in refused("deflate", WORDS + b"x" * 5000, 30)


def test_no_deflate_stream_is_refused() -> None:
    for hostile in (b"\xff" * 100, b"\x07" + bytes(50), b"\x01\x05\x00\x00\x00hello", b"PK\x03\x04" * 30):
        refused("deflate", hostile, 1000)


def test_an_unknown_coding_names_the_known_ones() -> None:
    try:
        decoder("zip", 10)
    except CodingError as error:
        assert str(error) == "coding zip is unknown; this agent knows deflate, none, segments"
    else:
        raise AssertionError("accepted")
