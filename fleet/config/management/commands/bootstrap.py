"""`manage.py bootstrap`: a database that is up to date, an administrator and one API token; safe to call again."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import BaseCommand, CommandParser, call_command
from django.db import transaction

from fleet.accounts.roles import Role
from fleet.accounts.services import ensure_roles, find_token, make_token, revoke, set_roles

USERNAME = "admin"
TOKEN_NAME = "bootstrap"


class Command(BaseCommand):
    """Migrate, make the administrator once, and render the broker's users where the broker reads a file."""

    help = (
        "Migrates, makes the administrator and one API token (kept in TINYFLEET_VAR/admin.json, mode 0600)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Offer to leave the database as it is."""
        parser.add_argument("--no-migrate", action="store_true", help="Do not touch the database's tables.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do all of it, and print the password only when it is new."""
        if not options["no_migrate"]:
            call_command("migrate", interactive=False, verbosity=0)
        ensure_roles()
        file = settings.VAR / "admin.json"
        if not _opens_the_door(file):
            self.stdout.write(_sentence(_make_admin(file), file))
        if settings.BROKER_GRANTS.startswith("nats-file:"):
            call_command("render_grants", verbosity=0)


def _opens_the_door(file: Path) -> bool:
    # Another database, or one restored from a copy, may not know the token that was kept.
    try:
        token = json.loads(file.read_text())["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(token, str) and find_token(token) is not None


@transaction.atomic
def _make_admin(file: Path) -> dict[str, str]:
    user, made = User.objects.get_or_create(username=USERNAME)
    password = ""
    if made:
        password = secrets.token_urlsafe(18)
        user.set_password(password)
        user.is_staff = True
        user.save()
        set_roles(user, {Role.ADMIN})
    for lost in user.api_tokens.filter(name=TOKEN_NAME, revoked_at=None):
        revoke(lost)
    _, token = make_token(user, TOKEN_NAME)
    admin = {"username": USERNAME, "password": password, "token": token}
    # Written before the transaction commits: a file that opens nothing is made again, a lost password is not.
    _write_private(file, json.dumps(admin, indent=2) + "\n")
    return admin


def _sentence(admin: dict[str, str], file: Path) -> str:
    if admin["password"]:
        return f"user {admin['username']}, password {admin['password']} (kept in {file})"
    change = f"manage.py changepassword {admin['username']}"
    return f"user {admin['username']} keeps the password it has ({change} sets another); a new token is in {file}"


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    draft.replace(file)
