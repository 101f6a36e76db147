"""Writes what a job found: candidates as they come, and at the end, in one transaction, its artifacts."""

import json
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from compression_jobs.models import Candidate, Job
from fleet import events
from fleet.registry.leases import Lease
from fleet.registry.models import Target
from fleet.registry.publishing import StoredArtifact, publish_artifact, store_artifact

SENSITIVITY = "sensitivity.json"  # as the search writes it
RESULT_FIELDS = ("met", "shown", "sentence", "binding", "winner")


def keep_candidates(job: Job, candidates: list[dict[str, Any]]) -> None:
    """Write measured candidates, each once however often a job is retried; call it with the lease checked."""
    targets = {target.slug: target for target in job.targets.all()}
    for found in candidates:
        Candidate.objects.update_or_create(
            job=job, target=targets[found["target"]], key=found["id"], defaults=_columns(found)
        )


def _columns(found: dict[str, Any]) -> dict[str, Any]:
    plain = ("recipe", "sha256", "format", "bytes", "transport_bytes", "parameters", "macs", "peak_ram_bytes")
    return {
        **{name: found[name] for name in plain},
        "measurements": _shown(found),
        "fits": found["fits"],
        "on_front": found["on_front"],
        "rejected": found["rejected"] or "",
    }


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a candidate, without where its file lay on the worker."""
    return {name: value for name, value in found.items() if name != "path"}


def publish(job: Job, lease: Lease, results: dict[str, Any], out: Path) -> bool:
    """End the job with its artifacts; False, and nothing written, when its lease is somebody else's by now."""
    targets = {target.slug: target for target in job.targets.all()}
    stored = {slug: _store(out / slug, targets[slug], winner) for slug, winner in _winners(results).items()}
    with transaction.atomic():
        if not lease.finish(**_ending(results), sensitivity=_sensitivity(out)):
            return False
        for result in results.values():
            keep_candidates(job, result["candidates"])
        for slug, winner in _winners(results).items():
            _publish_one(job, targets[slug], stored[slug], winner)
        events.publish("jobs", "artifacts", f"job:{job.pk}", f"version:{job.version_id}", "overview")
    return True


def _winners(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By target, the candidate that met its goal."""
    return {
        slug: next(each for each in result["candidates"] if each["id"] == result["winner"])
        for slug, result in results.items()
        if result["met"] and result["winner"]
    }


def _ending(results: dict[str, Any]) -> dict[str, Any]:
    unmet = [result["sentence"] for result in results.values() if not result["met"]]
    state = Job.State.FAILED if len(unmet) == len(results) else Job.State.SUCCEEDED
    return {
        "state": state,
        "reason": " ".join(unmet),
        "problems": unmet,
        "results": {slug: {name: result[name] for name in RESULT_FIELDS} for slug, result in results.items()},
        "finished_at": timezone.now(),
    }


def _sensitivity(out: Path) -> dict[str, Any]:
    """What the job found about single layers; nothing when it did not look."""
    path = out / SENSITIVITY
    return json.loads(path.read_text()) if path.exists() else {}


def _store(folder: Path, target: Target, winner: dict[str, Any]) -> StoredArtifact:
    return store_artifact(
        folder / Path(winner["path"]).name,
        folder / "transport.bin",
        folder / "selftest.bin",
        json.loads((folder / "signature.json").read_text()),
        format=winner["format"],
        coding=winner["transport"]["coding"],
        chunk_bytes=target.chunk_bytes,
    )


def _publish_one(job: Job, target: Target, stored: StoredArtifact, winner: dict[str, Any]) -> None:
    artifact = publish_artifact(
        job.version,
        target,
        stored,
        measurements=_shown(winner),
        lineage=winner["lineage"],
        dataset=job.dataset,
        job=str(job.pk),
    )
    Candidate.objects.filter(job=job, target=target, key=winner["id"]).update(artifact=artifact)
