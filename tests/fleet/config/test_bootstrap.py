"""The administrator is made once; what was lost is made again without locking anybody out."""

import json
import stat
from io import StringIO

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import call_command

from fleet.accounts.roles import Role, roles_of
from fleet.accounts.services import find_token

pytestmark = pytest.mark.django_db


@pytest.fixture
def bootstrap(settings, tmp_path):
    settings.VAR = tmp_path
    settings.BROKER_GRANTS = "none"

    def run() -> str:
        out = StringIO()
        call_command("bootstrap", no_migrate=True, stdout=out)
        return out.getvalue()

    return run


def test_it_prints_once_what_opens_the_door(bootstrap, tmp_path):
    said = bootstrap()
    file = tmp_path / "admin.json"
    admin = json.loads(file.read_text())
    assert admin["password"] in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    user = authenticate(username=admin["username"], password=admin["password"])
    assert Role.ADMIN in roles_of(user)
    assert find_token(admin["token"]).user == user

    before = file.read_bytes()
    assert bootstrap() == ""
    assert file.read_bytes() == before


def test_a_lost_file_costs_a_new_token_but_no_password(bootstrap, tmp_path):
    bootstrap()
    old = json.loads((tmp_path / "admin.json").read_text())
    (tmp_path / "admin.json").unlink()
    said = bootstrap()
    new = json.loads((tmp_path / "admin.json").read_text())
    assert "keeps the password" in said
    assert authenticate(username="admin", password=old["password"])
    assert find_token(new["token"])
    assert find_token(old["token"]) is None
    assert User.objects.count() == 1
