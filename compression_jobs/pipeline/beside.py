"""What an artifact needs beside its bytes: how its runtime brings features to the scale of an int8 input."""

import hashlib
import json
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.atomic import write_atomic

FILE = "normalisation.json"


def write(folder: Path, normalisation: dict[str, Any] | None) -> None:
    """Write it beside an artifact in `folder`; without one, remove what lay there."""
    if normalisation is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        write_atomic(folder / FILE, json.dumps(normalisation))


def read(artifact: Path) -> dict[str, Any] | None:
    """What lies beside an artifact: `{mean, std, axis}` as the signature says it, or None."""
    path = artifact.with_name(FILE)
    return json.loads(path.read_text()) if path.exists() else None


def identity(artifact: Path, sha256: str) -> str:
    """The digest of all that decides what an artifact answers; `sha256` is that of its bytes."""
    path = artifact.with_name(FILE)
    return hashlib.sha256(sha256.encode() + path.read_bytes()).hexdigest() if path.exists() else sha256
