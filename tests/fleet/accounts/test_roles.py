"""Roles: who is let in where."""

import pytest
from django.contrib.auth.models import AnonymousUser, Group

from fleet.accounts.roles import Role, allows, require
from fleet.accounts.services import ensure_roles, set_roles
from fleet.errors import Forbidden, Unauthenticated
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        ([], {Role.VIEWER}),
        ([Role.VIEWER], {Role.VIEWER}),
        ([Role.ENGINEER], {Role.VIEWER, Role.ENGINEER}),
        ([Role.OPERATOR], {Role.VIEWER, Role.OPERATOR}),
        ([Role.ENGINEER, Role.OPERATOR], {Role.VIEWER, Role.ENGINEER, Role.OPERATOR}),
        ([Role.ADMIN], set(Role)),
    ],
)
def test_what_each_role_may(held: list[Role], allowed: set[Role]) -> None:
    user = UserFactory(roles=held)
    assert {role for role in Role if allows(user, role)} == allowed


def test_a_superuser_may_everything_and_an_inactive_one_nothing() -> None:
    assert all(allows(UserFactory(is_superuser=True), role) for role in Role)
    assert not any(allows(UserFactory(is_superuser=True, is_active=False), role) for role in Role)


def test_a_refusal_names_the_missing_role() -> None:
    with pytest.raises(Forbidden, match="engineer, which may upload") as refusal:
        require(UserFactory(), Role.ENGINEER)
    assert "administrator" in refusal.value.remedy
    with pytest.raises(Unauthenticated):
        require(AnonymousUser(), Role.VIEWER)


def test_the_groups_are_there_after_migrating_and_can_be_made_again() -> None:
    ensure_roles()
    assert set(Group.objects.values_list("name", flat=True)) >= set(Role)


def test_setting_roles_leaves_other_groups_alone() -> None:
    user = UserFactory(roles=[Role.ENGINEER])
    user.groups.add(Group.objects.create(name="berlin"))
    set_roles(user, {Role.OPERATOR})
    assert set(user.groups.values_list("name", flat=True)) == {"operator", "berlin"}
