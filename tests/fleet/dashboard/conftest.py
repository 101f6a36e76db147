"""Clients for the tests of pages: one a role."""

from collections.abc import Callable

import pytest
from django.test import Client

from fleet.accounts.roles import Role
from tests.factories import UserFactory
from tests.fleet.pages import Reader

Login = Callable[..., Client]


@pytest.fixture
def login(db: None) -> Login:
    """A client that is logged in with the given roles."""

    def make(*roles: Role) -> Client:
        client = Reader()
        client.force_login(UserFactory(roles=list(roles)))
        return client

    return make
