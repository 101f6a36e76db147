"""A job's candidates as its page shows them: the step it is at, the rows of the table and the picture."""

from dataclasses import dataclass
from typing import Any

from compression_jobs.models import Candidate, Job
from fleet.dashboard.charts import Chart
from fleet.dashboard.pareto_chart import CandidatePoint, pareto
from fleet.registry.models import Artifact, Target

MOST = 500


@dataclass(frozen=True)
class Row:
    """One candidate."""

    candidate: Candidate
    recipe: str
    kind: str
    verdict: str

    @property
    def figures(self) -> dict[str, Any]:
        """What was measured."""
        return dict(self.candidate.measurements)


def of(job: Job, target: Target) -> list[Row]:
    """The candidates of one target, the published one first, then the front, then the rest by size."""
    found = Candidate.objects.filter(job=job, target=target).select_related("artifact", "target")[:MOST]
    order = ("winner", "front", "fits", "misses")
    rows = [Row(c, recipe_words(c.recipe), kind(c), verdict(c)) for c in found]
    return sorted(rows, key=lambda row: (order.index(row.kind), row.candidate.bytes))


def kind(candidate: Candidate) -> str:
    """Which of the four kinds of the picture it is."""
    if candidate.artifact_id:
        return "winner"
    if candidate.on_front and candidate.fits:
        return "front"
    return "fits" if candidate.fits else "misses"


def verdict(candidate: Candidate) -> str:
    """Why it is published or not, in a sentence."""
    if candidate.artifact_id:
        return "Published."
    missed = candidate.measurements.get("missed") or []
    return (
        candidate.rejected
        or " ".join(missed)
        or ("On the front." if candidate.on_front else "Another is better.")
    )


def recipe_words(recipe: list[dict[str, Any]]) -> str:
    """The passes in order, with the options that tell candidates apart."""
    return " → ".join(_step_words(step) for step in recipe) or "as uploaded"


def _step_words(step: dict[str, Any]) -> str:
    given = (step.get("options") or {}).items()
    options = [str(value) for _, value in given if isinstance(value, str)]
    options += [
        f"{key.replace('_', ' ')} {', '.join(value)}"
        for key, value in given
        if value and isinstance(value, list)
    ]
    name = str(step.get("name", "")).replace("_", " ")
    return f"{name} ({', '.join(options)})" if options else name


def chart(job: Job, target: Target, rows: list[Row]) -> Chart:
    """Accuracy against bytes with the lines of the budget."""
    points = [
        CandidatePoint(
            row.candidate.key,
            row.recipe,
            row.candidate.bytes,
            row.figures.get("accuracy") or {},
            row.kind,
            row.verdict,
        )
        for row in rows
    ]
    return pareto(points, target.flash_bytes, job.goals.get("min_accuracy"))


def artifacts(job: Job) -> dict[int, Artifact]:
    """What the job published, by target."""
    return {artifact.target_id: artifact for artifact in Artifact.objects.filter(job=str(job.pk))}


def steps(job: Job) -> list[tuple[str, str]]:
    """The stepped line: each step with done, now, stopped or nothing."""
    if job.state == Job.State.SUCCEEDED:
        return [(name, "done") for name in ("Queued", "Started", "Candidates measured", "Published")]
    ended = job.state in (Job.State.FAILED, Job.State.CANCELLED)
    began = job.started_at is not None
    measured = bool(job.progress.get("candidate")) or bool(job.results) or job.candidates.exists()
    reached = 2 if measured else 1 if began else 0
    names = ("Queued", "Started", "Candidates measured", "Published")
    return [
        (name, "done" if at < reached else ("stopped" if ended else "now") if at == reached else "")
        for at, name in enumerate(names)
    ]
