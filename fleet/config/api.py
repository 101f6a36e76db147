"""The REST API under `/api/v1`: every app's router, and one shape for every error."""

import logging
from collections.abc import Sequence
from typing import Any

import redis
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DataError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from kombu.exceptions import OperationalError as QueueError
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, AuthorizationError, HttpError, ValidationError

from compression_jobs import api as compression
from fleet.accounts import api as accounts
from fleet.accounts.auth import AUTH
from fleet.config import health
from fleet.errors import FleetError, Forbidden, NotFound, TooLarge, Unauthenticated, Unavailable
from fleet.inventory import api as inventory
from fleet.inventory import history_api
from fleet.registry import api as registry
from fleet.rollouts import api as rollouts
from fleet.rollouts import experiments_api, hooks_api, planning_api, steering_api
from fleet.telemetry import api as telemetry

logger = logging.getLogger(__name__)

INVALID = "invalid"
TOKEN_REMEDY = "Send the header 'Authorization: Bearer tf_...' with a valid token, or log in."


def _answer(request: HttpRequest, error: FleetError) -> HttpResponse:
    return api.create_response(request, error.as_dict(), status=error.status)


def _plain(
    request: HttpRequest, code: str, status: int, detail: str, remedy: str = "", problems: Sequence[str] = ()
) -> HttpResponse:
    body: dict[str, object] = {"error": code, "detail": detail, "remedy": remedy}
    if problems:
        body["problems"] = list(problems)
    return api.create_response(request, body, status=status)


def _sentence(error: dict[str, Any]) -> str:
    # Ninja names where a value came from first (body, query, ...), then the parameter, then the field.
    place = ".".join(str(part) for part in error.get("loc", ())[1:] if part not in ("data", "payload"))
    return f"{place or 'request'}: {error.get('msg', 'is not valid')}"


def on_fleet_error(request: HttpRequest, error: FleetError) -> HttpResponse:
    """An error of ours: its status, and its words."""
    return _answer(request, error)


def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """A request that does not match the schema: every problem at once."""
    problems = [_sentence(each) for each in error.errors]
    detail = problems[0] if len(problems) == 1 else f"{len(problems)} fields are not valid"
    return _plain(request, INVALID, 422, detail, "The schema of every call is at /api/v1/docs.", problems)


def on_unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    """No token, or one that is not known, expired or revoked."""
    return _answer(request, Unauthenticated("no valid token came with this request", remedy=TOKEN_REMEDY))


def on_forbidden(request: HttpRequest, error: Exception) -> HttpResponse:
    """Known, but not allowed."""
    return _answer(request, Forbidden(str(error) or "your role does not allow this"))


def on_missing(request: HttpRequest, error: Exception) -> HttpResponse:
    """No such address or row."""
    return _answer(request, NotFound(f"there is nothing at {request.path}"))


def on_suspicious(request: HttpRequest, error: Exception) -> HttpResponse:
    """More fields or files than a form may have, or a body of JSON that is far too long."""
    return _answer(request, TooLarge("the request has more, or larger, fields than this server takes"))


def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    """An error that Ninja itself raises, such as a body that is no JSON or a missing CSRF token."""
    if error.status_code != 403:
        return _plain(
            request, INVALID if error.status_code < 500 else FleetError.code, error.status_code, error.message
        )
    # Ninja looks at the CSRF token before it looks whether anybody is logged in.
    if not request.user.is_authenticated:
        return on_unauthenticated(request, AuthenticationError())
    return _answer(request, Forbidden(error.message, remedy="Reload the page, or send an API token instead."))


def on_unstorable(request: HttpRequest, error: DataError) -> HttpResponse:
    """A value that PostgreSQL cannot keep: too long for its column, or with a NUL in it."""
    logger.warning("%s %s: %s", request.method, request.path, error)
    return _plain(
        request,
        INVALID,
        422,
        "a value is too long, too large, or holds a character that the database cannot keep",
        "Shorten texts, and leave out control characters.",
    )


def on_silent_service(request: HttpRequest, error: Exception) -> HttpResponse:
    """The database, Redis or the queue does not answer."""
    logger.error("%s %s failed: %s", request.method, request.path, error)
    what = "the database" if isinstance(error, OperationalError) else "Redis"
    remedy = "Try again in a moment; /api/v1/health shows what is down."
    return _answer(request, Unavailable(f"{what} does not answer", remedy=remedy))


def on_bug(request: HttpRequest, error: Exception) -> HttpResponse:
    """A mistake of ours: the trace goes to the log, never to the caller."""
    logger.exception("%s %s failed", request.method, request.path)
    return _answer(
        request, FleetError("something went wrong on the server", remedy="The server's log has the details.")
    )


def missing(request: HttpRequest, rest: str) -> HttpResponse:
    """Answer for an address under /api that no router knows, in the API's own shape."""
    return on_missing(request, Http404())


HANDLERS: dict[type[Exception], Any] = {
    FleetError: on_fleet_error,
    ValidationError: on_invalid,
    AuthenticationError: on_unauthenticated,
    AuthorizationError: on_forbidden,
    PermissionDenied: on_forbidden,
    HttpError: on_http_error,
    SuspiciousOperation: on_suspicious,
    Http404: on_missing,
    DataError: on_unstorable,
    OperationalError: on_silent_service,
    QueueError: on_silent_service,
    redis.RedisError: on_silent_service,
    Exception: on_bug,
}

ROUTERS = (
    accounts.router,
    registry.router,
    compression.router,
    inventory.router,
    history_api.router,
    telemetry.router,
    planning_api.router,
    experiments_api.router,
    rollouts.router,
    steering_api.router,
    hooks_api.router,
    health.router,
)

api = NinjaAPI(title="Tinyfleet", version="1", urls_namespace="api", auth=AUTH)
for _kind, _handler in HANDLERS.items():
    api.add_exception_handler(_kind, _handler)
for _router in ROUTERS:
    api.add_router("", _router)
