"""Who may do what: four roles, kept as Django groups, so that any log-in that fills groups works."""

from enum import StrEnum
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group

from fleet.errors import Forbidden, Unauthenticated

Caller = AbstractBaseUser | AnonymousUser


class Role(StrEnum):
    """What a person or program may do; each value is the name of a Django group."""

    VIEWER = "viewer"
    ENGINEER = "engineer"
    OPERATOR = "operator"
    ADMIN = "admin"


MAY: dict[Role, str] = {
    Role.VIEWER: "read everything",
    Role.ENGINEER: "upload models and datasets, and run compression jobs",
    Role.OPERATOR: "manage devices and groups, and run rollouts",
    Role.ADMIN: "do everything, and manage users, tokens, enrolment and revoking",
}


def roles_of(user: Caller) -> frozenset[Role]:
    """The roles that `user` holds; everyone who is logged in reads, and an admin holds all."""
    if not (user.is_authenticated and user.is_active):
        return frozenset()
    names = _group_names(user)
    if getattr(user, "is_superuser", False) or Role.ADMIN in names:
        return frozenset(Role)
    return frozenset({Role.VIEWER, *(role for role in Role if role in names)})


def _group_names(user: Any) -> frozenset[str]:
    # One page asks a dozen times; the groups of one request's user object do not change under it.
    if not hasattr(user, "_tinyfleet_groups"):
        user._tinyfleet_groups = frozenset(user.groups.values_list("name", flat=True))
    names: frozenset[str] = user._tinyfleet_groups
    return names


def allows(user: Caller, role: Role) -> bool:
    """Whether `user` may do what `role` may."""
    return role in roles_of(user)


def require(user: Caller, role: Role) -> None:
    """Raise Forbidden, naming the missing role, unless `user` holds it."""
    if not user.is_authenticated:
        raise Unauthenticated("nobody is logged in", remedy="Log in, or send an API token.")
    if not allows(user, role):
        raise Forbidden(
            f"{user.get_username()} does not have the role {role}, which may {MAY[role]}",
            remedy=f"Ask an administrator for the role {role}.",
        )


def ensure_groups() -> None:
    """Make the groups of the roles where they are missing."""
    for role in Role:
        Group.objects.get_or_create(name=role)
