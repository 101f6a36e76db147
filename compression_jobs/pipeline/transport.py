"""What travels instead of an artifact: tried in every coding, decoded again, and the smallest kept."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compression_jobs.pipeline import segments
from compression_jobs.pipeline.weights_in_file import weights_in
from device_agent.core import coding

FILE = "transport.bin"
# Above this size a board would take minutes to decode segments in Python; inflate is native code everywhere.
SEGMENTS_MAX_BYTES = 16 << 20
ZSTD_LEVEL = 19


@dataclass(frozen=True)
class Transport:
    """The bytes over the air, and what each coding takes; `zstd` is for comparison, no device decodes it."""

    coding: str
    data: bytes
    sizes: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Coding, bytes, digest, and the size in each coding."""
        sha256 = hashlib.sha256(self.data).hexdigest()
        return {"coding": self.coding, "bytes": len(self.data), "sha256": sha256, "sizes": self.sizes}


def encoded(artifact: bytes, format: str, wanted: str = "smallest") -> Transport:
    """The artifact in the coding `wanted`, or in the smallest; ties go to the simpler one."""
    forms = {"none": artifact, "deflate": coding.encode("deflate", artifact)}
    if len(artifact) <= SEGMENTS_MAX_BYTES or wanted == "segments":
        forms["segments"] = segments.encode(artifact, weights_in(artifact, format))
    sizes = {name: len(data) for name, data in forms.items()} | {"zstd": _zstd_bytes(artifact)}
    name = min(forms, key=lambda name: len(forms[name])) if wanted == "smallest" else wanted
    if decoded(name, forms[name], len(artifact)) != artifact:
        raise AssertionError(f"{name} does not give the artifact back")
    return Transport(name, forms[name], sizes)


def decoded(name: str, data: bytes, total_bytes: int, chunk_bytes: int = 32768) -> bytes:
    """The artifact as a device gets it: chunk by chunk through the device's own decoder."""
    decoder = coding.decoder(name, total_bytes)
    feed: Callable[[bytes], Any] = decoder.feed
    finish: Callable[[], Any] = decoder.finish
    pieces: list[bytes] = []
    for start in range(0, len(data), chunk_bytes):
        pieces += feed(data[start : start + chunk_bytes])
    pieces += finish()
    return b"".join(pieces)


def sentence(sent: dict[str, Any]) -> str:
    """What `as_dict` says in words."""
    others = (
        f"{name} {size}" for name, size in sent["sizes"].items() if name not in (sent["coding"], "zstd")
    )
    return (
        f"over the air {sent['bytes']} bytes as {sent['coding']} ({', '.join(others)}; "
        f"for comparison zstd -{ZSTD_LEVEL} {sent['sizes']['zstd']})"
    )


def _zstd_bytes(artifact: bytes) -> int:
    import zstandard

    return len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(artifact))
