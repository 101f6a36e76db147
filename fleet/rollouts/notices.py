"""Who is told that a rollout is held, turns round, is rolled back or finished, and how an experiment goes.

Notices are made with the decision, sent by a task, and tried again.
"""

import smtplib
import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db.models import QuerySet
from django.utils import timezone

from fleet.accounts.roles import Caller, Role, require
from fleet.errors import NotFound, Refused
from fleet.rollouts import webhooks
from fleet.rollouts.models import Experiment, Hook, Notice, Rollout

# Verb of a decision -> what is told.
EVENTS = {
    "hold": "held",
    "roll_back": "rolling_back",
    "recall": "rolling_back",
    "rolled_back": "rolled_back",
    "succeed": "finished",
    "abort": "finished",
}
ATTEMPTS = 8
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(hours=6)
# A run of the task ends well before its time limit; the rest comes with the next one.
BUDGET_SECONDS = 12
MAX_HOOKS = 50


def about(rollout: Rollout, verb: str, sentence: str) -> None:
    """Make a notice for every hook, in the transaction of the decision."""
    event = EVENTS.get(verb)
    if event is None:
        return
    body = {
        "rollout": rollout.pk,
        "state": rollout.state,
        "model": rollout.version.model.slug,
        "version": rollout.version.number,
        "group": rollout.group.slug,
        "app": rollout.app,
        "sentence": sentence,
        "url": f"{settings.PUBLIC_URL}/rollouts/{rollout.pk}/",
    }
    _make(event, body, rollout=rollout)


def about_experiment(experiment: Experiment, event: str) -> None:
    """The same for an experiment: started, decided, undecided, stopped or promoted, with the sentence of its state."""
    body = {
        "experiment": experiment.pk,
        "state": experiment.state,
        "model": experiment.version_a.model.slug,
        "version_a": experiment.version_a.number,
        "version_b": experiment.version_b.number,
        "winner": experiment.winner,
        "promotion": experiment.promotion_id,
        "group": experiment.group.slug,
        "app": experiment.app,
        "sentence": experiment.reason,
        "url": f"{settings.PUBLIC_URL}/experiments/{experiment.pk}/",
    }
    _make(f"experiment_{event}", body, experiment=experiment)


def _make(event: str, body: dict[str, Any], **about: Rollout | Experiment) -> None:
    now, told = timezone.now(), {"event": event, **body}
    Notice.objects.bulk_create(
        Notice(hook=hook, event=event, body=told, next_at=now, **about) for hook in Hook.objects.all()
    )


def add_hook(user: Caller, kind: str, address: str) -> Hook:
    """Tell an address from now on; asked for twice, it is there once."""
    require(user, Role.ADMIN)
    address = address.strip()
    if kind == Hook.Kind.WEBHOOK:
        webhooks.check(address)
    elif kind == Hook.Kind.EMAIL:
        _check_email(address)
    else:
        raise Refused(f"there is no kind '{kind[:40]}'", remedy="Use webhook or email.")
    if Hook.objects.count() >= MAX_HOOKS:
        raise Refused(f"{MAX_HOOKS} addresses are told already", remedy="Remove one first.")
    return Hook.objects.get_or_create(kind=kind, address=address, defaults={"created_by_id": user.pk})[0]


def remove_hook(user: Caller, pk: UUID) -> None:
    """Tell an address nothing more; what waits for it goes as well."""
    require(user, Role.ADMIN)
    if not Hook.objects.filter(pk=pk).delete()[0]:
        raise NotFound("there is no such address", remedy="Look at the list of notifications.")


def try_out(user: Caller, pk: UUID) -> Notice:
    """Send a test message, as a rollout would."""
    require(user, Role.ADMIN)
    hook = Hook.objects.filter(pk=pk).first()
    if hook is None:
        raise NotFound("there is no such address", remedy="Look at the list of notifications.")
    body = {"event": "test", "sentence": "this is a test", "url": settings.PUBLIC_URL}
    return Notice.objects.create(hook=hook, event="test", body=body, next_at=timezone.now())


def send_due(now: datetime) -> int:
    """Send what is due, each by one worker; returns how many were taken."""
    began, done = time.monotonic(), 0
    for notice in _due(now)[:MAX_HOOKS]:
        if time.monotonic() - began > BUDGET_SECONDS:
            break
        if _claim(notice, now):
            done += _send(notice, now)
    return done


def _due(now: datetime) -> QuerySet[Notice]:
    due = Notice.objects.filter(state=Notice.State.WAITING, next_at__lte=now)
    return due.select_related("hook").order_by("next_at")


def _claim(notice: Notice, now: datetime) -> bool:
    """Of several workers one sends it; when that one dies, the next try comes after the wait."""
    mine = Notice.objects.filter(pk=notice.pk, state=Notice.State.WAITING, attempts=notice.attempts)
    wait = min(FIRST_WAIT * 4**notice.attempts, LONGEST_WAIT)
    notice.attempts += 1
    return mine.update(attempts=notice.attempts, next_at=now + wait) == 1


def _send(notice: Notice, now: datetime) -> bool:
    try:
        if notice.hook.kind == Hook.Kind.EMAIL:
            _mail(notice)
        else:
            webhooks.post(notice, now)
    except webhooks.NotTaken as error:
        given_up = notice.attempts >= ATTEMPTS
        state = Notice.State.FAILED if given_up else Notice.State.WAITING
        ended = {"ended_at": now} if given_up else {}
        Notice.objects.filter(pk=notice.pk).update(state=state, reason=str(error), **ended)
        return False
    Notice.objects.filter(pk=notice.pk).update(state=Notice.State.SENT, ended_at=now, reason="")
    return True


def _mail(notice: Notice) -> None:
    body = notice.body
    subject = f"Tinyfleet: {_what(notice)}: {notice.event.removeprefix('experiment_').replace('_', ' ')}"
    try:
        send_mail(subject, f"{body['sentence']}\n\n{body['url']}\n", None, [notice.hook.address])
    except (OSError, smtplib.SMTPException) as error:
        raise webhooks.NotTaken(f"{type(error).__name__}: {error}"[:300]) from error


def _what(notice: Notice) -> str:
    body = notice.body
    if notice.rollout_id:
        return f"rollout {body['rollout']} of {body['model']} v{body['version']}"
    if notice.experiment_id:
        return f"experiment {body['experiment']} of {body['model']} v{body['version_a']} and v{body['version_b']}"
    return "a test"


def _check_email(address: str) -> None:
    if settings.EMAIL_BACKEND.endswith("dummy.EmailBackend"):
        raise Refused("this server sends no e-mail", remedy="An administrator of the server sets EMAIL_URL.")
    try:
        validate_email(address)
    except ValidationError:
        raise Refused(
            f"'{address[:80]}' is no e-mail address", remedy="Write it like a@example.org."
        ) from None
