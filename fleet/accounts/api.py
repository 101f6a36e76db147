"""`/me` and the caller's API tokens."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Router, Schema
from ninja.pagination import paginate

from fleet.accounts import services
from fleet.accounts.models import ApiToken
from fleet.accounts.roles import Role, require, roles_of

router = Router(tags=["accounts"])


class MeOut(Schema):
    """Who is asking."""

    username: str
    roles: list[Role]


class TokenIn(Schema):
    """What a new token is for."""

    name: Annotated[str, Field(min_length=1, max_length=services.MAX_NAME_CHARS)]
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    user: Annotated[str, Field(description="For somebody else; needs the role admin.")] | None = None


class TokenOut(Schema):
    """A token as it can be listed: never its text."""

    id: int
    name: str
    prefix: str
    user: Annotated[str, Field(alias="user.username")]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class NewTokenOut(TokenOut):
    """The only answer that holds the text of a token."""

    token: str


def caller(request: HttpRequest) -> Any:
    """The user who was authenticated; `Any`, because Django types it as possibly anonymous."""
    return request.user


@router.get("/me", response=MeOut)
def me(request: HttpRequest) -> dict[str, Any]:
    """Who the server takes the caller for, and what they may do."""
    return {"username": request.user.get_username(), "roles": sorted(roles_of(request.user))}


@router.get("/tokens", response=list[TokenOut])
@paginate
def list_tokens(request: HttpRequest, everyone: bool = False) -> QuerySet[ApiToken]:
    """The caller's tokens; those of everyone for an admin who asks for them."""
    return services.tokens_for(caller(request), everyone=everyone)


@router.post("/tokens", response={201: NewTokenOut})
def make_token(request: HttpRequest, payload: TokenIn) -> tuple[int, dict[str, Any]]:
    """Make a token; its text is in this answer and nowhere else."""
    owner = caller(request)
    if payload.user is not None and payload.user != owner.username:
        require(owner, Role.ADMIN)
        owner = services.user_named(payload.user)
    days = payload.expires_in_days
    expires_at = timezone.now() + timedelta(days=days) if days else None
    token, text = services.make_token(owner, payload.name, expires_at=expires_at)
    return 201, TokenOut.from_orm(token).model_dump() | {"user.username": owner.username, "token": text}


@router.delete("/tokens/{token_id}", response={204: None})
def revoke_token(request: HttpRequest, token_id: int) -> tuple[int, None]:
    """Revoke a token; from now on it opens nothing."""
    services.revoke(services.token_of(caller(request), token_id))
    return 204, None
