"""How the API knows who asks: a bearer token, or the session of somebody who logged in."""

from typing import Any

from auditlog.context import auditlog_value
from django.http import HttpRequest
from ninja.security import HttpBearer, SessionAuth

from fleet.accounts.models import ApiToken
from fleet.accounts.services import PREFIX, find_token


class BearerToken(HttpBearer):
    """`Authorization: Bearer tf_...`; the token's user becomes the request's user."""

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        """The token that was sent, when it is valid."""
        found = find_token(token) if token.startswith(PREFIX) else None
        if found is not None:
            request.user = found.user
            _name_actor(found.user)
        return found


def _name_actor(user: Any) -> None:
    # The audit middleware ran before the token was read, so it saw nobody.
    context = auditlog_value.get(None)
    if isinstance(context, dict):
        context["actor"] = user


# Sessions ride on cookies, which browsers send from foreign pages too: SessionAuth checks the CSRF token.
AUTH = [BearerToken(), SessionAuth(csrf=True)]
