"""Rollouts: the list, the live page, and what a person may do to one."""

import uuid
from collections.abc import Callable

from django.contrib.auth.models import User
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django_tables2 import RequestConfig

from fleet.accounts.roles import Role
from fleet.dashboard import progress, strategy_words
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.filters import RolloutFilter
from fleet.dashboard.steering import Asked
from fleet.dashboard.tables import RolloutTable
from fleet.dashboard.words import plural
from fleet.rollouts import consents, offering, services, shadows, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave

Verb = Callable[[User, Rollout, Asked], Rollout]

VERBS: dict[str, tuple[Verb, str]] = {
    "start": (lambda user, rollout, asked: services.start(user, rollout, note=asked.note), "Started."),
    "schedule": (
        lambda user, rollout, asked: services.schedule(user, rollout, asked.start_at(), note=asked.note),
        "The start is set.",
    ),
    "approve": (lambda user, rollout, asked: services.approve(user, rollout, note=asked.note), "Approved."),
    "pause": (
        lambda user, rollout, asked: services.pause(user, rollout, note=asked.note),
        "Paused: nobody else is asked for now.",
    ),
    "resume": (lambda user, rollout, asked: services.resume(user, rollout, note=asked.note), "Resumed."),
    "advance": (
        lambda user, rollout, asked: services.advance(
            user, rollout, now=asked.now, wave=asked.number("wave"), note=asked.note
        ),
        "The next wave opens.",
    ),
    "retry": (
        lambda user, rollout, asked: services.retry(user, rollout, now=asked.now, note=asked.note),
        "Those that failed are asked again.",
    ),
    "abort": (
        lambda user, rollout, asked: services.abort(user, rollout, "keep", now=asked.now, note=asked.note),
        "Aborted; devices that have it keep it.",
    ),
    "roll-back": (
        lambda user, rollout, asked: services.roll_back(
            user, rollout, now=asked.now, part=asked.part(), note=asked.note
        ),
        "Rolling back.",
    ),
}
SHOWN_DELIVERIES = 300
OPEN_WAVE = (Wave.State.HELD, Wave.State.SOAKING)


@page()
def index(request: HttpRequest) -> HttpResponse:
    """Every rollout with how many devices succeeded."""
    install = Q(deliveries__kind=Delivery.Kind.INSTALL)
    rollouts = Rollout.objects.select_related("version__model", "group").annotate(
        total=Count("deliveries", filter=install),
        succeeded=Count("deliveries", filter=install & Q(deliveries__state=Delivery.State.SUCCEEDED)),
    )
    # Grouped queries drop the model's own ordering.
    rollouts = rollouts.order_by("-created_at", "-pk")
    found = RolloutFilter(request.GET, queryset=rollouts)
    table = RolloutTable(found.qs)
    RequestConfig(request, paginate={"per_page": 50}).configure(table)
    context = {"section": "rollouts", "filter": found, "table": table, "any": Rollout.objects.exists()}
    return render(request, "dashboard/pages/rollouts.html", context)


@page()
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """The live page: waves, the gate's sentence, decisions, deliveries."""
    rollout = services.rollout_by_id(pk)
    waves = progress.waves(rollout)
    asked = progress.asked(rollout)
    verbs = services.possible_verbs(rollout)
    if rollout.created_by_id == reader(request).pk:
        verbs = [verb for verb in verbs if verb != "approve"]  # a second person does
    deliveries = rollout.deliveries.select_related(
        "device", "wave", "artifact__version__model", "artifact__target"
    ).order_by("wave__number", "device__name", "kind")
    context = {
        "section": "rollouts",
        "rollout": rollout,
        "waves": waves,
        "way_back": progress.way_back(rollout),
        "steps": progress.steps(rollout, waves),
        "open_wave": next((view.wave.number for view in waves if view.wave.state in OPEN_WAVE), ""),
        "targets": sorted({d.artifact.target.slug for d in deliveries[:SHOWN_DELIVERIES] if d.artifact}),
        "key": uuid.uuid4().hex,
        "verbs": verbs,
        "asked": asked,
        "asked_words": plural(asked, "device"),
        "exposed": services.exposed(rollout),
        "shadow": shadows.compare(rollout) if shadows.is_shadow(rollout) else None,
        "decisions": rollout.decisions.select_related("decided_by", "wave")[:50],
        "deliveries": [(d, progress.evidence_words(d.evidence)) for d in deliveries[:SHOWN_DELIVERIES]],
        "waiting": offering.why_waiting(rollout, timezone.now()),
        "asking": rollout.deliveries.filter(
            consent=Delivery.Consent.WANTED, state=Delivery.State.PENDING
        ).select_related("device")[:SHOWN_DELIVERIES],
        "strategy": strategy_words.rows(strategy.read(rollout.strategy)),
    }
    return render(request, "dashboard/pages/rollout.html", context)


@page("POST", role=Role.OPERATOR)
def consent(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    """What the owner of a device that asks has said."""
    rollout, said = services.rollout_by_id(pk), request.POST.get("answer", "")
    attempt(
        request,
        lambda: consents.answer(reader(request), rollout, name, said, timezone.now()),
        f"{name}: {said}.",
    )
    return redirect("dashboard:rollout", pk)


@page("POST", role=Role.OPERATOR)
def act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Do one of the verbs that make sense now."""
    if verb not in VERBS:
        raise Http404
    rollout = services.rollout_by_id(pk)
    do, done = VERBS[verb]
    attempt(request, lambda: do(reader(request), rollout, Asked(request.POST, timezone.now())), done)
    return redirect("dashboard:rollout", pk)


@page("POST", role=Role.OPERATOR)
def clone(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a draft like this one and go there."""
    rollout = services.rollout_by_id(pk)
    key = str(request.POST.get("key", ""))
    made = attempt(
        request, lambda: services.clone(reader(request), rollout, key=key), "A draft like it is made."
    )
    return redirect("dashboard:rollout", made.pk if made else pk)
