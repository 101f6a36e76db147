"""The one secret that Django itself needs, made once and kept in a file nobody else can read."""

import os
import secrets
from pathlib import Path


def secret_key(file: Path) -> str:
    """The secret in `file`, which is made when it is missing; every process that asks gets the same one."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        _make(file)
        return file.read_text().strip()


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(secrets.token_urlsafe(64) + "\n")
    # A link to a whole file: whoever comes first wins, and no process ever reads half a secret.
    try:
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
