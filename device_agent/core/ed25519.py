"""Ed25519 verification (RFC 8032) and the SHA-512 it needs, for interpreters that have neither.

Strict: refuses a scalar of `L` and above, points that are not in canonical form, and points of small order, for which
one signature would fit any message. The equation is checked without cofactor, as OpenSSL and libsodium do.
Nothing here is secret, so nothing needs to run in constant time.
"""

_P = (1 << 255) - 19
_L = (1 << 252) + 27742317777372353535851937790883648493
_D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
_ROOT_OF_MINUS_ONE = 19681161376707505956807079304988542015446066515923890162744021073123829784752
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
_MASK = (1 << 64) - 1

# First 64 bits of the fractions of the square roots of the first 8 primes, and of the cube roots of the first 80.
_START = (
    0x6A09E667F3BCC908,
    0xBB67AE8584CAA73B,
    0x3C6EF372FE94F82B,
    0xA54FF53A5F1D36F1,
    0x510E527FADE682D1,
    0x9B05688C2B3E6C1F,
    0x1F83D9ABFB41BD6B,
    0x5BE0CD19137E2179,
)
# One string of bytes: 80 integers of 64 bits would each be an object on MicroPython's heap.
_ROUNDS = bytes.fromhex(
    "428a2f98d728ae227137449123ef65cdb5c0fbcfec4d3b2fe9b5dba58189dbbc3956c25bf348b53859f111f1b605d019"
    "923f82a4af194f9bab1c5ed5da6d8118d807aa98a303024212835b0145706fbe243185be4ee4b28c550c7dc3d5ffb4e2"
    "72be5d74f27b896f80deb1fe3b1696b19bdc06a725c71235c19bf174cf692694e49b69c19ef14ad2efbe4786384f25e3"
    "0fc19dc68b8cd5b5240ca1cc77ac9c652de92c6f592b02754a7484aa6ea6e4835cb0a9dcbd41fbd476f988da831153b5"
    "983e5152ee66dfaba831c66d2db43210b00327c898fb213fbf597fc7beef0ee4c6e00bf33da88fc2d5a79147930aa725"
    "06ca6351e003826f142929670a0e6e7027b70a8546d22ffc2e1b21385c26c9264d2c6dfc5ac42aed53380d139d95b3df"
    "650a73548baf63de766a0abb3c77b2a881c2c92e47edaee692722c851482353ba2bfe8a14cf10364a81a664bbc423001"
    "c24b8b70d0f89791c76c51a30654be30d192e819d6ef5218d69906245565a910f40e35855771202a106aa07032bbd1b8"
    "19a4c116b8d2d0c81e376c085141ab532748774cdf8eeb9934b0bcb5e19b48a8391c0cb3c5c95a634ed8aa4ae3418acb"
    "5b9cca4f7763e373682e6ff3d6b2b8a3748f82ee5defb2fc78a5636f43172f6084c87814a1f0ab728cc702081a6439ec"
    "90befffa23631e28a4506cebde82bde9bef9a3f7b2c67915c67178f2e372532bca273eceea26619cd186b8c721c0c207"
    "eada7dd6cde0eb1ef57d4f7fee6ed17806f067aa72176fba0a637dc5a2c898a6113f9804bef90dae1b710b35131c471b"
    "28db77f523047d8432caab7b40c724933c9ebe0a15c9bebc431d67c49c100d4c4cc5d4becb3e42b6597f299cfc657e2a"
    "5fcb6fab3ad6faec6c44198c4a475817"
)


def sha512(message: bytes) -> bytes:
    """The SHA-512 digest of a message (FIPS 180-4)."""
    padded = (
        bytes(message) + b"\x80" + bytes((111 - len(message)) % 128) + (8 * len(message)).to_bytes(16, "big")
    )
    state = list(_START)
    for offset in range(0, len(padded), 128):
        _sha512_block(state, padded, offset)
    return b"".join([word.to_bytes(8, "big") for word in state])


def _rotated(x: int, n: int) -> int:
    return ((x >> n) | (x << (64 - n))) & _MASK


def _sha512_block(state: "list[int]", data: bytes, offset: int) -> None:
    w = [int.from_bytes(data[offset + 8 * i : offset + 8 * i + 8], "big") for i in range(16)]
    a, b, c, d, e, f, g, h = state
    for i in range(80):
        if i >= 16:
            x, y = w[(i - 15) & 15], w[(i - 2) & 15]
            small0 = _rotated(x, 1) ^ _rotated(x, 8) ^ (x >> 7)
            small1 = _rotated(y, 19) ^ _rotated(y, 61) ^ (y >> 6)
            w[i & 15] = (w[i & 15] + small0 + w[(i - 7) & 15] + small1) & _MASK
        big1 = _rotated(e, 14) ^ _rotated(e, 18) ^ _rotated(e, 41)
        constant = int.from_bytes(_ROUNDS[8 * i : 8 * i + 8], "big")
        t = h + big1 + ((e & f) ^ (~e & g & _MASK)) + constant + w[i & 15]
        big0 = _rotated(a, 28) ^ _rotated(a, 34) ^ _rotated(a, 39)
        h, g, f, e = g, f, e, (d + t) & _MASK
        d, c, b, a = c, b, a, (t + big0 + ((a & b) ^ (a & c) ^ (b & c))) & _MASK
    for i, word in enumerate((a, b, c, d, e, f, g, h)):
        state[i] = (state[i] + word) & _MASK


# Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z (RFC 8032, section 5.1.4).
_IDENTITY = (0, 1, 1, 0)


def _add(p: tuple[int, int, int, int], q: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(p: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    a = p[0] * p[0] % _P
    b = p[1] * p[1] % _P
    h = a + b
    e = h - (p[0] + p[1]) * (p[0] + p[1])
    g = a - b
    f = 2 * p[2] * p[2] + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _decoded(raw: bytes) -> "tuple[int, int, int, int] | None":
    """The point in 32 bytes, or None when they are no point in canonical form."""
    y = int.from_bytes(raw, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _has_small_order(p: tuple[int, int, int, int]) -> bool:
    p = _double(_double(_double(p)))
    return p[0] % _P == 0 and (p[1] - p[2]) % _P == 0


def _sum_of_multiples(
    s: int, p: tuple[int, int, int, int], k: int, q: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """s * p + k * q, both at once (Shamir's trick)."""
    both = _add(p, q)
    total = _IDENTITY
    bit = 1 << 255
    while bit:
        total = _double(total)
        if s & bit:
            total = _add(total, both if k & bit else p)
        elif k & bit:
            total = _add(total, q)
        bit >>= 1
    return total


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the 64-byte signature over the message was made with the secret of the 32-byte public key."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    a = _decoded(public_key)
    r = _decoded(signature[:32])
    if s >= _L or a is None or r is None or _has_small_order(a) or _has_small_order(r):
        return False
    k = int.from_bytes(sha512(signature[:32] + public_key + message), "little") % _L
    minus_a = (_P - a[0], a[1], 1, _P - a[3])
    base = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)
    made = _sum_of_multiples(s, base, k, minus_a)
    return (made[0] - r[0] * made[2]) % _P == 0 and (made[1] - r[1] * made[2]) % _P == 0
