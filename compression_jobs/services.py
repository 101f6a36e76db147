"""Verbs of compression: submit a job, cancel it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from pydantic import ValidationError

from compression_jobs.models import Job
from compression_jobs.named_models import named_models
from compression_jobs.pipeline import errors as pipeline
from compression_jobs.pipeline.dataset import check_pair
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.targets import refuse_unknown
from fleet import events
from fleet.errors import Conflict, Duplicate, NotFound, Refused
from fleet.registry import queueing
from fleet.registry.models import CheckState, Dataset, ModelVersion, Target
from fleet.registry.presets import pipeline_target

RUN = "compression_jobs.run"
MAX_TARGETS = 20


def submit(
    version: ModelVersion,
    dataset: Dataset,
    *,
    targets: Sequence[str],
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    objective: str = "bytes",
    recipe: list[dict[str, Any]] | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    user: Any = None,
) -> Job:
    """Queue a job that compresses `version` for `targets`; everything that cannot work is refused now."""
    _refuse_unready(version, dataset)
    rows = _targets(targets)
    goals = {"min_accuracy": min_accuracy, "max_drop": max_drop, "objective": objective}
    recipe = _checked_plan(targets, goals, recipe)
    _refuse_misfit(version, dataset)
    named_models(recipe)  # refuses names that lead nowhere
    spends = (effort or Effort()).model_dump()
    what = {"version": version.pk, "dataset": dataset.pk, "targets": sorted(targets), "effort": spends}
    job = Job(
        version=version,
        dataset=dataset,
        goals=goals,
        recipe=recipe,
        effort=spends,
        seed=seed,
        fingerprint=_fingerprint({**what, "goals": goals, "recipe": recipe, "seed": seed}),
        queued_at=timezone.now(),
        created_by=user if user is not None and user.is_authenticated else None,
    )
    return _queued(job, rows)


def _queued(job: Job, targets: Sequence[Target]) -> Job:
    try:
        with transaction.atomic():
            job.save(force_insert=True)
            job.targets.set(targets)
            queueing.send(RUN, job.pk)
            events.publish("jobs", f"job:{job.pk}", f"version:{job.version_id}", "overview")
    except IntegrityError:
        twin = Job.objects.filter(fingerprint=job.fingerprint, state__in=Job.WAITING).first()
        if twin is None:
            raise
        raise Duplicate(
            f"job {twin.pk} is {twin.state} with exactly this version, dataset, targets, goals and seed",
            remedy=f"Follow job {twin.pk}, or cancel it first.",
        ) from None
    return job


def _refuse_unready(version: ModelVersion, dataset: Dataset) -> None:
    for name, row in ((str(version), version), (f"dataset {dataset.pk}", dataset)):
        if row.state == CheckState.REFUSED:
            raise Conflict(f"{name} was refused: {row.reason}", remedy="Upload one that passes the check.")
        if row.state != CheckState.READY:
            raise Conflict(f"{name} is still being checked", remedy="Submit the job when its state is ready.")
    # A ready .tflite is carried over to the targets as it is.
    if version.format == "onnx" and version.facts.get("quantised"):
        raise Refused(
            f"{version} is quantised already, and compression starts from a float model",
            remedy="Upload the float export of the same model.",
        )


def _targets(slugs: Sequence[str]) -> list[Target]:
    if not 0 < len(slugs) <= MAX_TARGETS or len(set(slugs)) != len(slugs):
        raise Refused(
            f"a job has 1 to {MAX_TARGETS} different targets; this one has {len(slugs)}",
            remedy="GET /api/v1/targets lists them.",
        )
    known = {row.slug: row for row in Target.objects.all()}
    try:
        refuse_unknown(slugs, {slug: pipeline_target(row) for slug, row in known.items()})
    except pipeline.Refused as error:
        raise refused(error) from None
    return [known[slug] for slug in slugs]


def _checked_plan(
    targets: Sequence[str], goals: dict[str, Any], recipe: list[dict[str, Any]] | None
) -> list[dict[str, Any]] | None:
    """The recipe with all options filled in, or None for a search; refuses goals and recipes that cannot work."""
    try:
        if recipe is None or goals["min_accuracy"] is not None or goals["max_drop"] is not None:
            Goal.model_validate({"target": targets[0], **goals})
        return None if recipe is None else parse_recipe(recipe).as_list()
    except ValidationError as error:
        problems = [_problem(dict(each)) for each in error.errors()]
        raise Refused("; ".join(problems), problems=problems) from None
    except pipeline.Refused as error:
        raise refused(error) from None


def _problem(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


def _refuse_misfit(version: ModelVersion, dataset: Dataset) -> None:
    task, found = version.model.task, dataset.facts["task"]
    if task != found:
        raise Refused(
            f"{version.model.slug} is a model for {task}, dataset {dataset.pk} is one for {found}",
            remedy="Integers in y make a classification, floats a regression; without y, or with task="
            "'reconstruction' in the .npz, rows are rebuilt. Or upload under a model of that task.",
        )
    try:
        check_pair(version.facts, dataset.facts)
    except pipeline.Refused as error:
        raise refused(error) from None


def refused(error: pipeline.Refused) -> Refused:
    """The pipeline's refusal in the server's words."""
    text = f"{error.node}: {error.message}" if error.node else error.message
    return Refused(text, remedy=error.remedy, problems=error.problems)


def _fingerprint(what: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def get_job(pk: int) -> Job:
    """The job of that id."""
    job = Job.objects.select_related("version__model", "dataset").filter(pk=pk).first()
    if job is None:
        raise NotFound(f"there is no job {pk}", remedy="GET /api/v1/jobs lists them.")
    return job


def cancel(job: Job) -> Job:
    """Stop a job: one that waits at once, one that runs within seconds; a job that is over is a Conflict."""
    now = timezone.now()
    rows = Job.objects.filter(pk=job.pk)
    waiting = rows.filter(state=Job.State.QUEUED)
    stopped = waiting.update(
        state=Job.State.CANCELLED,
        cancel_requested=True,
        finished_at=now,
        reason="cancelled before it started",
    )
    if not stopped and not rows.filter(state=Job.State.RUNNING).update(cancel_requested=True):
        job.refresh_from_db()
        raise Conflict(f"job {job.pk} is over already: it {_ending(job)}")
    events.publish("jobs", f"job:{job.pk}", "overview")
    job.refresh_from_db()
    return job


def _ending(job: Job) -> str:
    return {Job.State.CANCELLED: "was cancelled"}.get(Job.State(job.state), str(job.state))
