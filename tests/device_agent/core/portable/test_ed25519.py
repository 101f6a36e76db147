"""Ed25519 accepts the vectors of RFC 8032 and refuses what a strict verifier must refuse."""

from device_agent.core.ed25519 import _decoded, sha512, verify

L = (1 << 252) + 27742317777372353535851937790883648493
P = (1 << 255) - 19

# RFC 8032, section 7.1: public key, message, signature (TEST 1, 2, 3 and SHA(abc)).
VECTORS = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
)


def vector(i: int) -> tuple:
    return tuple(bytes.fromhex(part) for part in VECTORS[i])


def little(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_the_vectors_of_the_rfc_are_accepted() -> None:
    for i in range(len(VECTORS)):
        key, message, signature = vector(i)
        assert verify(key, message, signature)


def test_one_flipped_bit_anywhere_is_refused() -> None:
    key, message, signature = vector(2)
    for i in (0, 31, 32, 63):
        flipped = bytearray(signature)
        flipped[i] ^= 1
        assert not verify(key, message, bytes(flipped))
    assert not verify(key, b"\xaf\x83", signature)
    assert not verify(vector(1)[0], message, signature)


def test_wrong_lengths_are_refused() -> None:
    key, message, signature = vector(0)
    assert not verify(key[:31], message, signature)
    assert not verify(key, message, signature + b"\0")
    assert not verify(b"", message, b"")


def test_the_same_signature_with_a_larger_scalar_is_refused() -> None:
    key, message, signature = vector(1)
    s = int.from_bytes(signature[32:], "little")
    assert not verify(key, message, signature[:32] + little(s + L))


def test_points_of_small_order_are_refused() -> None:
    # With the neutral element as key and R, s = 0 would fit every message.
    neutral = little(1)
    assert not verify(neutral, b"anything", neutral + little(0))
    order_two = little(P - 1)
    order_four = little(0)
    order_eight = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    for point in (order_two, order_four, order_eight):
        for message in (b"a", b"b", b"c", b"d"):
            assert not verify(point, message, neutral + little(0))


def test_points_that_are_not_canonical_or_not_on_the_curve_are_refused() -> None:
    key, message, signature = vector(0)
    for point in (little(P), little(P + 1), little(1 | 1 << 255), little(2), b"\xff" * 32):
        assert not verify(point, message, signature)
        assert not verify(key, message, point + signature[32:])


def test_every_point_has_one_form_only() -> None:
    for y in (0, 1, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18):
        assert _decoded(little(y)) is not None
        assert _decoded(little(P + y)) is None
    # x is 0 for y = 1 and y = -1, and 0 has no sign.
    for y in (1, P - 1):
        assert _decoded(little(y)) is not None
        assert _decoded(little(y | 1 << 255)) is None


def test_sha512_of_the_standard_and_across_block_borders() -> None:
    assert sha512(b"abc").hex() == VECTORS[3][1]
    assert sha512(bytes(111)).hex().startswith("77ddd3a542e530fd")
    assert sha512(bytes(112)).hex().startswith("2be2e788c8a8adea")
