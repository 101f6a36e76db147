"""Ed25519 signatures as the server makes them (RFC 8032); the device only verifies."""

from device_agent.core import ed25519, protocol

_P = (1 << 255) - 19
_L = (1 << 252) + 27742317777372353535851937790883648493


def _compressed(scalar):
    base = ed25519._decoded(bytes([0x58]) + b"\x66" * 31)
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = ed25519._add(total, base)
        base = ed25519._double(base)
        scalar >>= 1
    inverse = pow(total[2], _P - 2, _P)
    x, y = total[0] * inverse % _P, total[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


class Key:
    """An Ed25519 key pair made from one byte (RFC 8032)."""

    def __init__(self, seed):
        digest = ed25519.sha512(bytes([seed]) * 32)
        self.scalar = (int.from_bytes(digest[:32], "little") & ((1 << 254) - 8)) | (1 << 254)
        self.prefix = digest[32:]
        self.public = _compressed(self.scalar)
        self.id = bytes([seed]) * 8
        self.made = {}

    def sign(self, body):
        if body not in self.made:
            r = int.from_bytes(ed25519.sha512(self.prefix + body), "little") % _L
            point = _compressed(r)
            k = int.from_bytes(ed25519.sha512(point + self.public + body), "little") % _L
            self.made[body] = point + ((r + k * self.scalar) % _L).to_bytes(32, "little")
        return self.made[body]

    def entry(self):
        return {"id": protocol.hex_digest(self.id), "key": protocol.hex_digest(self.public)}
