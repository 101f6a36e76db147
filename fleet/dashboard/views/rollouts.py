"""Rollouts: the list, the live page, and what a person may do to one."""

from collections.abc import Callable
from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django_tables2 import RequestConfig

from fleet.accounts.roles import Role
from fleet.dashboard import progress
from fleet.dashboard.access import attempt, page, reader
from fleet.dashboard.filters import RolloutFilter
from fleet.dashboard.tables import RolloutTable
from fleet.dashboard.words import plural
from fleet.rollouts import consents, offering, services
from fleet.rollouts.models import Delivery, Rollout
from fleet.rollouts.strategy import Strategy

Verb = Callable[[User, Rollout, datetime], Rollout]

VERBS: dict[str, tuple[Verb, str]] = {
    "start": (lambda user, rollout, now: services.start(user, rollout), "Started."),
    "approve": (lambda user, rollout, now: services.approve(user, rollout), "Approved."),
    "pause": (
        lambda user, rollout, now: services.pause(user, rollout),
        "Paused: nobody else is asked for now.",
    ),
    "resume": (lambda user, rollout, now: services.resume(user, rollout), "Resumed."),
    "advance": (lambda user, rollout, now: services.advance(user, rollout, now=now), "The next wave opens."),
    "abort": (
        lambda user, rollout, now: services.abort(user, rollout, "keep", now=now),
        "Aborted; devices that have it keep it.",
    ),
    "roll-back": (lambda user, rollout, now: services.roll_back(user, rollout, now=now), "Rolling back."),
}
SHOWN_DELIVERIES = 300


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
    deliveries = rollout.deliveries.select_related("device", "wave", "artifact__version__model").order_by(
        "wave__number", "device__name", "kind"
    )
    context = {
        "section": "rollouts",
        "rollout": rollout,
        "waves": waves,
        "way_back": progress.way_back(rollout),
        "steps": progress.steps(rollout, waves),
        "verbs": services.possible_verbs(rollout),
        "asked": asked,
        "asked_words": plural(asked, "device"),
        "exposed": services.exposed(rollout),
        "decisions": rollout.decisions.select_related("decided_by", "wave")[:50],
        "deliveries": [(d, progress.evidence_words(d.evidence)) for d in deliveries[:SHOWN_DELIVERIES]],
        "waiting": offering.why_waiting(rollout, timezone.now()),
        "asking": rollout.deliveries.filter(
            consent=Delivery.Consent.WANTED, state=Delivery.State.PENDING
        ).select_related("device")[:SHOWN_DELIVERIES],
        "strategy": Strategy.model_validate(rollout.strategy),
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
    attempt(request, lambda: do(reader(request), rollout, timezone.now()), done)
    return redirect("dashboard:rollout", pk)
