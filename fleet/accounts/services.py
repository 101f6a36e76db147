"""Verbs of accounts: roles that exist, tokens made and revoked, and who a token stands for."""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet
from django.utils import timezone

from fleet.accounts.models import ApiToken
from fleet.accounts.roles import Role, allows, ensure_groups, require
from fleet.errors import NotFound, Refused

PREFIX = "tf_"
SHOWN_CHARS = 8
MAX_NAME_CHARS = 100
LAST_USED_EVERY = timedelta(minutes=1)


def ensure_roles() -> None:
    """Make the groups of all roles; safe to call again."""
    ensure_groups()


def set_roles(user: User, roles: set[Role]) -> None:
    """Let `user` hold exactly `roles`; groups that are no roles stay as they are."""
    ensure_groups()
    user.groups.remove(*Group.objects.filter(name__in=set(Role) - roles))
    user.groups.add(*Group.objects.filter(name__in=roles))


def make_token(user: User, name: str, *, expires_at: datetime | None = None) -> tuple[ApiToken, str]:
    """A new token of `user` and its text, which can never be read again."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise Refused(
            f"a token's name has 1 to {MAX_NAME_CHARS} characters", remedy="Name what will use the token."
        )
    if expires_at is not None and expires_at <= timezone.now():
        raise Refused("the token would have expired already", remedy="Choose a time in the future.")
    text = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        prefix=text[: len(PREFIX) + SHOWN_CHARS],
        digest=_digest(text),
        expires_at=expires_at,
    )
    return token, text


def revoke(token: ApiToken, now: datetime | None = None) -> None:
    """End a token for good; a token that is revoked already keeps its time."""
    token.refresh_from_db(fields=["revoked_at"])
    if token.revoked_at is None:
        token.revoked_at = now or timezone.now()
        token.save(update_fields=["revoked_at"])


def tokens_for(user: User, *, everyone: bool = False) -> QuerySet[ApiToken]:
    """The tokens of `user`; those of everyone, for an admin."""
    if everyone:
        require(user, Role.ADMIN)
        return ApiToken.objects.select_related("user")
    return ApiToken.objects.filter(user=user).select_related("user")


def token_of(user: User, pk: int) -> ApiToken:
    """One token that `user` may manage; another's token does not exist for those who are no admin."""
    token = tokens_for(user, everyone=allows(user, Role.ADMIN)).filter(pk=pk).first()
    if token is None:
        raise NotFound(f"there is no token {pk} of yours", remedy="GET /api/v1/tokens lists them.")
    return token


def user_named(username: str) -> User:
    """The active user of that name."""
    user = User.objects.filter(username=username, is_active=True).first()
    if user is None:
        raise NotFound(f"there is no active user {username!r}")
    return user


def find_token(text: str, now: datetime | None = None) -> ApiToken | None:
    """The valid token that `text` is, noting its use at most once a minute; None for every other text."""
    now = now or timezone.now()
    digest = _digest(text)
    token = ApiToken.objects.select_related("user").filter(digest=digest).first()
    # The index is searched by a digest, whose bytes a caller cannot steer; the comparison leaks no prefix either.
    if token is None or not hmac.compare_digest(token.digest, digest):
        return None
    if not (token.is_valid(now) and token.user.is_active):
        return None
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_EVERY)
    if token.last_used_at is None or token.last_used_at < now - LAST_USED_EVERY:
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)
    return token


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
