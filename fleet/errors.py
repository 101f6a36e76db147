"""The exception tree of the server; every error names the thing, the reason and the way out.

FleetError
 ├── Refused            422  the input is not acceptable as it is
 │    └── TooLarge      413  it is larger than this server takes
 ├── Unauthenticated    401  who is asking is not known
 ├── Forbidden          403  the role does not allow it
 ├── NotFound           404  no such thing
 ├── Conflict           409  the thing is in a state that forbids it
 │    └── Duplicate     409  it is here already
 └── Unavailable        503  a service this needs does not answer
"""

from collections.abc import Sequence


class FleetError(Exception):
    """Base of every error that a user of the server can meet."""

    status = 500
    code = "error"

    def __init__(self, message: str, *, remedy: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.problems = list(problems)

    def as_dict(self) -> dict[str, object]:
        """The JSON body of an API answer."""
        body: dict[str, object] = {"error": self.code, "detail": self.message, "remedy": self.remedy}
        if self.problems:
            body["problems"] = self.problems
        return body


class Refused(FleetError):
    """The input is not acceptable as it is."""

    status = 422
    code = "refused"


class TooLarge(Refused):
    """The upload is larger than this server takes."""

    status = 413
    code = "too_large"


class Unauthenticated(FleetError):
    """Nobody is logged in and no valid token was sent."""

    status = 401
    code = "unauthenticated"


class Forbidden(FleetError):
    """The caller's role does not allow it."""

    status = 403
    code = "forbidden"


class NotFound(FleetError):
    """No such thing."""

    status = 404
    code = "not_found"


class Conflict(FleetError):
    """The thing is in a state that forbids it."""

    status = 409
    code = "conflict"


class Duplicate(Conflict):
    """It is here already; the message says where."""

    code = "duplicate"


class Unavailable(FleetError):
    """A service that this needs does not answer."""

    status = 503
    code = "unavailable"
