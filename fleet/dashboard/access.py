"""Who may see or do it, and how a refusal is told: the frame around every page and every verb."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from fleet.accounts.roles import Role, require
from fleet.dashboard.words import sentence
from fleet.errors import FleetError, Forbidden

View = Callable[..., HttpResponseBase]
Done = TypeVar("Done")

MAX_ASKED_CHARS = 100


def page(*methods: str, role: Role | None = None) -> Callable[[View], View]:
    """A view for people who are logged in; `role` is asked for before anything is sent by POST."""

    def wrap(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                if role and request.method == "POST":
                    require(reader(request), role)
                return view(request, *args, **kwargs)
            except FleetError as error:
                return refusal(request, error)

        allowed = require_http_methods([*(methods or ("GET",)), "HEAD"])(checked)
        return login_required(allowed)

    return wrap


def reader(request: HttpRequest) -> User:
    """The person who is logged in; pages are only reached by one."""
    user = request.user
    if not isinstance(user, User):
        raise Forbidden("nobody is logged in", remedy="Log in first.")
    return user


def asked(request: HttpRequest, name: str) -> str:
    """A text of the URL, short and without the zero characters that PostgreSQL refuses."""
    return request.GET.get(name, "").replace("\x00", "").strip()[:MAX_ASKED_CHARS]


def refusal(request: HttpRequest, error: FleetError) -> HttpResponse:
    """An error of ours as a page with its reason and the way out."""
    return render(request, "dashboard/refusal.html", {"error": error}, status=error.status)


def attempt(request: HttpRequest, verb: Callable[[], Done], done: str = "") -> Done | None:
    """Do it and say so; what forbids it becomes a message, so that the page behind the form comes back."""
    try:
        result = verb()
    except Forbidden:
        raise
    except FleetError as error:
        messages.error(
            request, " ".join(filter(None, (sentence(error.message), *error.problems[:20], error.remedy)))
        )
        return None
    if done:
        messages.success(request, done)
    return result
