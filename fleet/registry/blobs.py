"""Content-addressed files: streamed to storage while they are hashed, and gone when no row names them.

A blob's row is written before its file and deleted after it. A deletion is announced in the row first, so that a
second upload of the same bytes never trusts a file that is about to go.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from device_agent.core.protocol import is_sha256
from fleet.errors import NotFound, Refused, TooLarge, Unavailable
from fleet.registry.models import Artifact, Blob, BlobOffer, CheckState, Dataset, ModelVersion, Upload

if TYPE_CHECKING:
    from _typeshed import SupportsRead

READ_BYTES = 1 << 20
STAGING = "staging"
GRACE = timedelta(hours=1)
STAGING_KEPT = timedelta(days=1)
DELETION_TAKES_AT_MOST = timedelta(minutes=1)
WAIT_FOR_DELETION_SECONDS = 5.0


Source: TypeAlias = "SupportsRead[bytes] | Iterable[bytes]"

ARTIFACT_FIELDS = (
    "sha256",
    "transport_sha256",
    "transport_index_sha256",
    "self_test_sha256",
    "self_test_index_sha256",
    "signature_sha256",
    "signature_index_sha256",
)


# --- storing -------------------------------------------------------------------------------------


def store(source: Source, limit: int | None = None) -> Blob:
    """Keep the bytes of `source` under their SHA-256; TooLarge as soon as more than `limit` bytes have come.

    Call it outside transactions; name the blob in a row within an hour, or it is swept away.
    """
    with _staged(source, limit) as (staged, sha256, size):
        blob = _announce(sha256, size)
        _place(staged, sha256)
    return blob


def store_bytes(content: bytes) -> Blob:
    """Keep a small blob that is in memory already."""
    return store([content])


@contextmanager
def _staged(source: Source, limit: int | None) -> Iterator[tuple[Path, str, int]]:
    """A local file with the bytes of `source`, its SHA-256 and size; it is gone afterwards unless it was moved."""
    descriptor, name = tempfile.mkstemp(prefix="blob-", dir=_staging_folder())
    staged, digest, size = Path(name), hashlib.sha256(), 0
    try:
        with os.fdopen(descriptor, "wb") as out:
            for piece in _pieces(source):
                size += len(piece)
                if limit is not None and size > limit:
                    raise _too_large(limit)
                digest.update(piece)
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        yield staged, digest.hexdigest(), size
    finally:
        staged.unlink(missing_ok=True)


def _pieces(source: Source) -> Iterator[bytes]:
    # Uploads can be iterated too, but by lines.
    if not hasattr(source, "read"):
        yield from source
        return
    while piece := source.read(READ_BYTES):
        yield piece


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the upload has more than {limit} bytes, which is the most this server takes",
        remedy="Upload a smaller file, or raise UPLOAD_MAX_BYTES on the server.",
    )


def _announce(sha256: str, size: int) -> Blob:
    """The blob's row, freshly dated, so that no sweep takes the file before a row names it."""
    give_up_at = time.monotonic() + WAIT_FOR_DELETION_SECONDS
    while True:
        now = timezone.now()
        blob, is_new = Blob.objects.get_or_create(sha256=sha256, defaults={"bytes": size, "stored_at": now})
        not_going = Q(deleting_since=None) | Q(deleting_since__lt=now - DELETION_TAKES_AT_MOST)
        kept = Blob.objects.filter(not_going, pk=sha256).update(stored_at=now, deleting_since=None)
        if is_new or kept:
            return blob
        if time.monotonic() > give_up_at:
            raise Unavailable(
                "an older copy of this file is just being deleted", remedy="Try again in a minute."
            )
        time.sleep(0.05)


def _place(staged: Path, sha256: str) -> None:
    name = _name(sha256)
    if (final := _local_path(name)) is not None:
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(getattr(default_storage, "file_permissions_mode", None) or 0o640)
        os.replace(staged, final)
    elif not default_storage.exists(name):
        with staged.open("rb") as content:
            default_storage.save(name, File(content))


def _name(sha256: str) -> str:
    # Names come from requests too; nothing but a digest ever becomes part of a path.
    if not is_sha256(sha256):
        raise Refused(f"{sha256[:80]!r} is no SHA-256", remedy="Send 64 lower-case hexadecimal digits.")
    return f"{sha256[:2]}/{sha256}"


def _local_path(name: str) -> Path | None:
    """Where `name` is on this machine; None when the storage is elsewhere, such as S3."""
    return Path(default_storage.path(name)) if isinstance(default_storage, FileSystemStorage) else None


def _staging_folder() -> Path | None:
    folder = _local_path(STAGING)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- reading -------------------------------------------------------------------------------------


def exists(sha256: str) -> bool:
    """Whether the blob's file is in storage."""
    return default_storage.exists(_name(sha256))


def open_blob(sha256: str) -> IO[bytes]:
    """The blob's file, to be read and closed; NotFound when it is not in storage."""
    try:
        opened: Any = default_storage.open(_name(sha256), "rb")
    except FileNotFoundError:
        raise NotFound(
            f"blob {sha256} is not in storage", remedy="Upload the file again, or restore the storage folder."
        ) from None
    file: IO[bytes] = opened
    return file


def read_range(sha256: str, start: int, end: int) -> Iterator[bytes]:
    """The bytes `start` to `end` (exclusive) of a blob, in pieces of at most 1 MiB."""
    with open_blob(sha256) as file:
        file.seek(start)
        left = end - start
        while left > 0 and (piece := file.read(min(READ_BYTES, left))):
            left -= len(piece)
            yield piece


@contextmanager
def path_for_child(sha256: str, suffix: str = "") -> Iterator[Path]:
    """A local path of a private copy of the blob, for a child process that may do with it what it likes."""
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        path = Path(folder) / f"blob{suffix}"
        with open_blob(sha256) as source, path.open("wb") as out:
            while piece := source.read(READ_BYTES):
                out.write(piece)
        yield path


# --- deleting ------------------------------------------------------------------------------------


def _namings() -> list[QuerySet[Any]]:
    """Every way a row can name a blob; what none of them names may go."""
    outer = OuterRef("sha256")
    return [
        ModelVersion.objects.filter(sha256=outer).exclude(state=CheckState.REFUSED),
        Upload.objects.filter(sha256=outer),
        Dataset.objects.filter(sha256=outer).exclude(state=CheckState.REFUSED),
        BlobOffer.objects.filter(sha256=outer, withdrawn_at=None),
        *(Artifact.objects.filter(**{field: outer}) for field in ARTIFACT_FIELDS),
    ]


def unreferenced() -> QuerySet[Blob]:
    """The blobs that no row names."""
    found = Blob.objects.all()
    for naming in _namings():
        found = found.filter(~Exists(naming))
    return found


def delete_unreferenced(stored_before: datetime, among: Iterable[str] | None = None, most: int = 500) -> int:
    """Delete blobs that no row names and that were last stored before a time; returns how many went."""
    now = timezone.now()
    abandoned = Q(deleting_since=None) | Q(deleting_since__lt=now - DELETION_TAKES_AT_MOST)
    found = unreferenced().filter(abandoned, stored_at__lt=stored_before)
    if among is not None:
        found = found.filter(sha256__in=list(among))
    return sum(_delete(blob, now) for blob in found[:most])


def _delete(blob: Blob, now: datetime) -> bool:
    # One UPDATE decides: whoever stored or named it since then keeps it.
    unchanged = unreferenced().filter(
        pk=blob.pk, stored_at=blob.stored_at, deleting_since=blob.deleting_since
    )
    if not unchanged.update(deleting_since=now):
        return False
    default_storage.delete(_name(blob.sha256))
    Blob.objects.filter(pk=blob.pk, deleting_since=now).delete()
    return True


def delete_old_staging(now: datetime) -> int:
    """Delete what uploads left behind when their process was killed; returns how many files went."""
    folder, gone = _staging_folder(), 0
    for path in folder.glob("blob-*") if folder is not None else ():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < (now - STAGING_KEPT).timestamp():
                path.unlink()
                gone += 1
    return gone


__all__ = [
    "GRACE",
    "Blob",
    "delete_old_staging",
    "delete_unreferenced",
    "exists",
    "open_blob",
    "path_for_child",
    "read_range",
    "store",
    "store_bytes",
    "unreferenced",
]
