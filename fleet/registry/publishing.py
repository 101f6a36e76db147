"""Makes an artifact of a candidate's files: blobs with their chunk indexes first, then one row."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import transaction

from fleet import events
from fleet.registry import blobs
from fleet.registry.models import Artifact, Dataset, ModelVersion, Target


@dataclass(frozen=True)
class Indexed:
    """A stored blob and the blob of one SHA-256 a chunk of it."""

    sha256: str
    bytes: int
    index_sha256: str


@dataclass(frozen=True)
class StoredArtifact:
    """Everything of an artifact that is in storage already."""

    format: str
    model: blobs.Blob
    signature: dict[str, Any]
    coding: str
    transport: Indexed
    self_test: Indexed
    signature_blob: Indexed
    chunk_bytes: int


def store_artifact(
    model: Path,
    transport: Path,
    self_test: Path,
    signature: dict[str, Any],
    *,
    format: str,
    coding: str,
    chunk_bytes: int,
) -> StoredArtifact:
    """Put a candidate's files into storage, with an index for each that travels; call it outside transactions.

    `transport` is what `model` is sent as, in `coding`.
    """
    spec = json.dumps(signature, separators=(",", ":"), sort_keys=True).encode()
    return StoredArtifact(
        format=format,
        model=_store_file(model),
        signature=signature,
        coding=coding,
        transport=_indexed(_store_file(transport), chunk_bytes),
        self_test=_indexed(_store_file(self_test), chunk_bytes),
        signature_blob=_indexed(blobs.store_bytes(spec), chunk_bytes),
        chunk_bytes=chunk_bytes,
    )


def publish_artifact(
    version: ModelVersion,
    target: Target,
    stored: StoredArtifact,
    *,
    measurements: dict[str, Any],
    lineage: dict[str, Any],
    dataset: Dataset | None = None,
    job: str = "",
) -> Artifact:
    """The artifact of these bytes for this version and target; publishing it again gives the same row."""
    with transaction.atomic():
        artifact, is_new = Artifact.objects.get_or_create(
            version=version,
            target=target,
            sha256=stored.model.sha256,
            defaults={
                **_columns(stored),
                "measurements": measurements,
                "lineage": lineage,
                "dataset": dataset,
                "job": job,
            },
        )
        if is_new:
            events.publish(f"version:{version.pk}", "artifacts")
    return artifact


def _columns(stored: StoredArtifact) -> dict[str, Any]:
    return {
        "bytes": stored.model.bytes,
        "format": stored.format,
        "transport_coding": stored.coding,
        "transport_sha256": stored.transport.sha256,
        "transport_bytes": stored.transport.bytes,
        "transport_index_sha256": stored.transport.index_sha256,
        "self_test_sha256": stored.self_test.sha256,
        "self_test_bytes": stored.self_test.bytes,
        "self_test_index_sha256": stored.self_test.index_sha256,
        "signature": stored.signature,
        "signature_sha256": stored.signature_blob.sha256,
        "signature_bytes": stored.signature_blob.bytes,
        "signature_index_sha256": stored.signature_blob.index_sha256,
        "chunk_bytes": stored.chunk_bytes,
    }


def _store_file(path: Path) -> blobs.Blob:
    with path.open("rb") as file:
        return blobs.store(file)


def _indexed(blob: blobs.Blob, chunk_bytes: int) -> Indexed:
    digests = bytearray()
    with blobs.open_blob(blob.sha256) as file:
        while chunk := file.read(chunk_bytes):
            digests += hashlib.sha256(chunk).digest()
    return Indexed(blob.sha256, blob.bytes, blobs.store_bytes(bytes(digests)).sha256)
