"""Blobs: kept under their hash, cut at the limit, gone when nobody names them, never gone while somebody does."""

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from fleet.errors import NotFound, Refused, TooLarge
from fleet.registry import blobs
from fleet.registry.models import Blob
from tests.factories import ArtifactFactory, DatasetFactory, VersionFactory

LATER = timedelta(hours=2)


@pytest.fixture(autouse=True)
def _storage(settings: pytest.FixtureRequest, tmp_path: Path) -> None:
    options = {"location": str(tmp_path), "file_permissions_mode": 0o640}
    settings.STORAGES = {  # type: ignore[attr-defined]
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.django_db
def test_a_blob_is_found_by_the_hash_of_its_bytes(tmp_path: Path) -> None:
    content = b"weights" * 400_000
    blob = blobs.store([content[:1_000_000], content[1_000_000:]])
    assert blob.sha256 == hashlib.sha256(content).hexdigest()
    assert blob.bytes == len(content)
    with blobs.open_blob(blob.sha256) as file:
        assert file.read() == content
    assert b"".join(blobs.read_range(blob.sha256, 999_990, 1_000_010)) == content[999_990:1_000_010]
    assert [path.stat().st_mode & 0o777 for path in _files(tmp_path)] == [0o640]


@pytest.mark.django_db
def test_storing_stops_at_the_limit_and_leaves_nothing(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(100)

    with pytest.raises(TooLarge, match="more than 1000 bytes"):
        blobs.store(endless(), limit=1000)
    assert taken == 11
    assert _files(tmp_path) == []
    assert not Blob.objects.exists()


@pytest.mark.django_db
def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError("the sender went away")

    with pytest.raises(ConnectionError):
        blobs.store(broken())
    assert _files(tmp_path) == []


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "", "ab", "0" * 63 + "/"])
def test_nothing_but_a_digest_becomes_a_path(name: str) -> None:
    with pytest.raises(Refused, match="no SHA-256"):
        blobs.open_blob(name)


@pytest.mark.django_db
def test_a_missing_file_is_said_so() -> None:
    with pytest.raises(NotFound, match="not in storage"):
        blobs.open_blob("0" * 64)


@pytest.mark.django_db
def test_what_no_row_names_goes_after_a_grace_time() -> None:
    kept = {VersionFactory().sha256, DatasetFactory().sha256}
    artifact = ArtifactFactory()
    kept |= {getattr(artifact, field) for field in blobs.ARTIFACT_FIELDS} | {artifact.version.sha256}
    stray = blobs.store_bytes(b"nobody names this").sha256
    now = timezone.now()
    assert blobs.delete_unreferenced(stored_before=now - LATER) == 0
    assert blobs.delete_unreferenced(stored_before=now + LATER) == 1
    assert not blobs.exists(stray)
    assert all(blobs.exists(sha256) for sha256 in kept)
    assert set(Blob.objects.values_list("sha256", flat=True)) == kept


@pytest.mark.django_db
def test_storing_the_same_bytes_again_starts_the_grace_time_again() -> None:
    sha256 = blobs.store_bytes(b"twice").sha256
    Blob.objects.update(stored_at=timezone.now() - LATER)
    blobs.store_bytes(b"twice")
    assert blobs.delete_unreferenced(stored_before=timezone.now() - blobs.GRACE) == 0
    assert blobs.exists(sha256)


@pytest.mark.django_db
def test_a_sweep_that_comes_second_deletes_nothing() -> None:
    now, sha256 = timezone.now(), blobs.store_bytes(b"seen as stray").sha256
    seen = Blob.objects.get()
    blobs.store_bytes(b"seen as stray")
    assert not blobs._delete(seen, now)
    seen = Blob.objects.get()
    VersionFactory(sha256=sha256, upload_sha256=sha256)
    assert not blobs._delete(seen, now)
    assert blobs.exists(sha256)


@pytest.mark.django_db
def test_storing_again_heals_a_damaged_file(tmp_path: Path) -> None:
    sha256 = blobs.store_bytes(b"good bytes").sha256
    (tmp_path / sha256[:2] / sha256).write_bytes(b"bad")
    blobs.store_bytes(b"good bytes")
    with blobs.open_blob(sha256) as file:
        assert file.read() == b"good bytes"


@pytest.mark.django_db(transaction=True)
def test_storing_and_deleting_at_once_never_lose_a_blob_that_was_just_stored() -> None:
    lost: list[int] = []
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            blobs.delete_unreferenced(stored_before=timezone.now() + LATER)
        connection.close()

    deleter = threading.Thread(target=delete)
    deleter.start()
    for round_ in range(40):
        before = timezone.now()
        sha256 = blobs.store_bytes(b"contested").sha256
        # The deleter may take it right after; what must not be is a row, younger than ours, without its file.
        row = Blob.objects.filter(pk=sha256, deleting_since=None, stored_at__gte=before).first()
        if row and not blobs.exists(sha256) and Blob.objects.filter(pk=sha256, deleting_since=None).exists():
            lost.append(round_)
    stop.set()
    deleter.join()
    assert lost == []


@pytest.mark.django_db
def test_a_child_gets_a_copy_of_its_own() -> None:
    sha256 = blobs.store_bytes(b"original").sha256
    with blobs.path_for_child(sha256, suffix=".onnx") as path:
        assert path.suffix == ".onnx"
        path.write_bytes(b"changed by a hostile model")
    assert not path.exists()
    with blobs.open_blob(sha256) as file:
        assert file.read() == b"original"


@pytest.mark.django_db
def test_leftovers_of_killed_uploads_go_after_a_day(tmp_path: Path) -> None:
    (tmp_path / blobs.STAGING).mkdir()
    (tmp_path / blobs.STAGING / "blob-left").write_bytes(b"x")
    now = timezone.now()
    assert blobs.delete_old_staging(now) == 0
    assert blobs.delete_old_staging(now + timedelta(days=2)) == 1
